//! Journals whole, torn and damaged.
use super::*;
use crate::plan::FileState;
use proptest::prelude::*;
use std::path::Path;

fn record(event: Event) -> Record {
    Record { at: 1_700_000_000_000, event }
}

fn begin(direction: Direction) -> Record {
    record(Event::Begin { plan: Box::new(Plan::example(direction)) })
}

fn text(records: &[Record]) -> String {
    HEADER.to_owned() + &records.iter().map(|r| encode(r).unwrap()).collect::<String>()
}

fn whole() -> Vec<Record> {
    let mut records = vec![begin(Direction::Adopt)];
    for step in Direction::Adopt.steps() {
        records.push(record(Event::Enter { step: *step }));
        records.push(record(Event::Done { step: *step }));
    }
    records.push(record(Event::End { done: true }));
    records
}

#[test]
fn the_check_sum_is_the_one_of_zlib() {
    assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
}

#[test]
fn records_are_read_as_they_were_written() {
    let records = whole();
    let journal = decode(text(&records).as_bytes()).unwrap();
    assert_eq!(journal.records, records);
    assert_eq!(journal.whole, text(&records).len());
    assert_eq!(decode(b"").unwrap().records.len(), 0);
    assert!(decode(b"something else\n").is_err() && decode(b"berth-adopt-journal 2\n").is_err());
}

#[test]
fn a_write_that_was_cut_short_is_left_out_wherever_it_was_cut() {
    let records = whole();
    let all = text(&records);
    for cut in 0..=all.len() {
        let journal = decode(&all.as_bytes()[..cut]).unwrap();
        assert!(records.starts_with(&journal.records) && journal.whole <= cut, "cut at {cut}");
    }
}

#[test]
fn damage_in_the_middle_is_an_error() {
    let mut bytes = text(&whole()).into_bytes();
    bytes[HEADER.len() + 30] ^= 1;
    assert!(decode(&bytes).unwrap_err().contains("record 1 is damaged"));
}

#[test]
fn a_whole_record_of_a_newer_version_is_no_torn_write() {
    let json = "{\"at\":1,\"event\":\"enter\",\"step\":\"polish\"}";
    let newer = text(&whole()) + &format!("{:08x} {json}\n", crc32(json.as_bytes()));
    assert!(decode(newer.as_bytes()).unwrap_err().contains("not known to this version"));
    let torn = newer.replace(json, &json.replace("polish", "switch"));
    assert_eq!(decode(torn.as_bytes()).unwrap().records, whole());
}

#[test]
fn the_way_is_back_until_it_is_verified_and_forward_from_then_on() {
    let records = whole();
    for cut in 1..records.len() {
        let state = State::last(&records[..cut]).unwrap();
        let verified = state.done.contains(&Step::Verify);
        assert_eq!(state.way(), if verified { Way::Forward } else { Way::Back }, "after {:?}", records[cut - 1]);
        let committed = state.done.contains(&Step::Commit);
        assert_eq!(InForce::of(&records[..cut]).adoption.is_some(), committed);
    }
    assert_eq!(State::last(&records).unwrap().way(), Way::Nowhere);
    assert!(State::last(&[]).is_none());
}

#[test]
fn a_walk_back_goes_on_where_it_was_cut_short() {
    let mut records = vec![begin(Direction::Adopt)];
    records.extend([Step::Arm, Step::Stage, Step::Daemon].map(|step| record(Event::Enter { step })));
    records.push(record(Event::Back { reason: "first".into(), interrupted: true }));
    records.push(record(Event::Undone { step: Step::Daemon }));
    records.push(record(Event::Stuck { step: Step::Stage, reason: "busy".into() }));
    records.push(record(Event::Back { reason: "second".into(), interrupted: false }));
    let state = State::last(&records).unwrap();
    assert_eq!((state.way(), state.entered.as_slice()), (Way::Back, &[Step::Arm, Step::Stage][..]));
    assert!(state.interrupted, "as the first one says");
    assert_eq!((state.back.as_deref(), state.stuck), (Some("first"), Some((Step::Stage, "busy".to_owned()))));
}

#[test]
fn what_was_given_back_is_in_force_no_more() {
    let mut records = whole();
    records.push(begin(Direction::Return));
    records.push(record(Event::Back { reason: "failed".into(), interrupted: false }));
    records.push(record(Event::End { done: false }));
    assert!(InForce::of(&records).adoption.is_some(), "a return that walked back changes nothing");
    records.push(begin(Direction::Return));
    records.push(record(Event::Done { step: Step::Commit }));
    assert_eq!(InForce::of(&records), InForce::default());
}

#[test]
fn settings_are_in_force_beside_the_adoption_and_go_with_it() {
    let settings = |text: &str| {
        let settings: crate::plan::Settings = serde_json::from_str(text).unwrap();
        let state = FileState { text: text.into(), sha256: String::new(), mode: 0o644, uid: 0, gid: 0 };
        let after = (!settings.is_empty()).then_some(state);
        let file = FileChange { path: "/d/98".into(), before: None, after, directory_before: true };
        let plan = Plan { settings: Some(settings), files: vec![file], ..Plan::example(Direction::Configure) };
        record(Event::Begin { plan: Box::new(plan) })
    };
    let commit = || record(Event::Done { step: Step::Commit });
    let mut records = whole();
    let adopted = InForce::of(&records).adoption.unwrap();
    records.extend([settings(r#"{"maxPods": 70}"#), commit(), record(Event::End { done: true })]);
    records
        .extend([settings(r#"{"maxPods": 80}"#), record(Event::Back { reason: "failed".into(), interrupted: false })]);
    records.push(record(Event::End { done: false }));
    let force = InForce::of(&records);
    assert_eq!(force.adoption.as_ref(), Some(&adopted), "the node stays taken over");
    assert_eq!(
        force.settings.as_ref().unwrap().settings.as_ref().unwrap()["maxPods"],
        70,
        "what walked back is not in force"
    );
    let back = force.to_give_back().unwrap();
    assert_eq!(back.files.len(), adopted.files.len() + 1);
    assert!(back.files.last().is_some_and(|file| file.before.is_none() && file.path == Path::new("/d/98")));
    assert_eq!(force.clone().plans().count(), 2, "a journal that is written anew keeps both");

    let mut gone = records.clone();
    gone.extend([settings("{}"), commit()]);
    assert_eq!(InForce::of(&gone), InForce { adoption: Some(adopted), settings: None });
    records.extend([begin(Direction::Return), commit()]);
    assert_eq!(InForce::of(&records), InForce::default());
}

proptest! {
    #[test]
    fn any_bytes_are_a_journal_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..200), tail in any::<bool>()) {
        let mut all = HEADER.as_bytes().to_vec();
        all.extend(bytes);
        if tail { all.push(b'\n'); }
        if let Ok(journal) = decode(&all) {
            prop_assert!(journal.whole <= all.len());
            let _ = (State::last(&journal.records), InForce::of(&journal.records));
        }
    }
}
