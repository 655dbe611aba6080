//! Tests of the log writer against disks that are full at every possible byte.
use super::*;
use std::cell::RefCell;
use std::rc::Rc;

const NOW: Duration = Duration::from_secs(1_700_000_000);

/// A disk with room for a number of bytes, shared by its files.
#[derive(Clone, Default)]
struct Disk(Rc<RefCell<(Vec<u8>, usize)>>);

impl Disk {
    fn with_room(room: usize) -> Self {
        Self(Rc::new(RefCell::new((Vec::new(), room))))
    }
    fn free(&self, more: usize) {
        self.0.borrow_mut().1 += more;
    }
    fn text(&self) -> String {
        String::from_utf8(self.0.borrow().0.clone()).unwrap()
    }
}

impl Append for Disk {
    fn append(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let (content, room) = &mut *self.0.borrow_mut();
        let n = bytes.len().min(*room);
        if n == 0 {
            return Err(io::ErrorKind::StorageFull.into());
        }
        content.extend_from_slice(&bytes[..n]);
        *room -= n;
        Ok(n)
    }
}

fn write(log: &mut Log<Disk>, lines: &mut Lines, text: &str) {
    log.write(Stream::Stdout, lines, text.as_bytes(), NOW, &mut vec![0; MIN_BUFFER]);
}

fn contents(text: &str) -> Vec<&str> {
    assert!(text.is_empty() || text.ends_with('\n'), "torn: {text:?}");
    text.lines()
        .map(|line| {
            let mut words = line.splitn(4, ' ');
            assert_eq!(words.next().unwrap().len(), stamp::LEN, "{line:?}");
            assert!(matches!(words.next().unwrap(), "stdout" | "stderr"), "{line:?}");
            assert!(matches!(words.next().unwrap(), "P" | "F"), "{line:?}");
            words.next().unwrap()
        })
        .collect()
}

#[test]
fn records_look_as_the_kubelet_reads_them() {
    let disk = Disk::with_room(usize::MAX);
    let (mut log, mut out, mut err) = (Log::new(Some(disk.clone())), Lines::default(), Lines::default());
    write(&mut log, &mut out, "one\ntw");
    log.write(Stream::Stderr, &mut err, b"oops", NOW, &mut vec![0; MIN_BUFFER]);
    log.finish(Stream::Stderr, &mut err, NOW + Duration::from_nanos(5), &mut vec![0; MIN_BUFFER]);
    write(&mut log, &mut out, "o\n");
    assert_eq!(
        disk.text(),
        "2023-11-14T22:13:20.000000000Z stdout F one\n\
         2023-11-14T22:13:20.000000005Z stderr F oops\n\
         2023-11-14T22:13:20.000000005Z stdout F two\n"
    );
    assert_eq!(log.dropped(), 0);
}

#[test]
fn a_small_buffer_changes_nothing() {
    let long = format!("{}\n", "x".repeat(50_000));
    let text = format!("a\n{long}b\n\n{long}");
    let by_buffer = |size: usize| {
        let disk = Disk::with_room(usize::MAX);
        let (mut log, mut lines) = (Log::new(Some(disk.clone())), Lines::default());
        log.write(Stream::Stdout, &mut lines, text.as_bytes(), NOW, &mut vec![0; size]);
        disk.text()
    };
    assert_eq!(by_buffer(MIN_BUFFER), by_buffer(1 << 20));
}

/// Wherever the disk fills up, afterwards the file has whole records only, those that were accepted in order, one marker with
/// the exact number of bytes lost, and then goes on.
#[test]
fn a_full_disk_leaves_whole_records_wherever_it_strikes() {
    let record = PREFIX + 4 + 1;
    for room in 0..=5 * record {
        let disk = Disk::with_room(room);
        let (mut log, mut lines) = (Log::new(Some(disk.clone())), Lines::default());
        write(&mut log, &mut lines, "1111\n2222\n3333\n4444\n");
        write(&mut log, &mut lines, "5555\n");
        disk.free(10_000);
        write(&mut log, &mut lines, "6666\n");
        let text = disk.text();
        let found = contents(&text);
        let markers: Vec<_> = found.iter().filter(|c| c.starts_with("berth: ")).collect();
        let lines: Vec<_> = found.iter().filter(|c| !c.starts_with("berth: ")).copied().collect();
        let kept = lines.len() - 1;
        assert_eq!(lines[..kept], ["1111", "2222", "3333", "4444", "5555"][..kept], "room {room}");
        assert_eq!(lines[kept], "6666");
        let lost = (5 - kept) * record;
        assert_eq!(log.dropped(), lost as u64, "room {room}");
        if lost > 0 {
            assert_eq!(markers.len(), 1, "room {room}");
            assert!(markers[0].starts_with(&format!("berth: {lost} bytes of this log were lost: ")), "{}", markers[0]);
        } else {
            assert!(markers.is_empty());
        }
    }
}

#[test]
fn a_marker_that_is_cut_is_completed_too() {
    for room in 1..120 {
        let disk = Disk::with_room(0);
        let (mut log, mut lines) = (Log::new(Some(disk.clone())), Lines::default());
        write(&mut log, &mut lines, "1111\n");
        disk.free(room);
        write(&mut log, &mut lines, "2222\n");
        disk.free(10_000);
        write(&mut log, &mut lines, "3333\n");
        let text = disk.text();
        let found = contents(&text);
        assert!(found.iter().any(|c| c.starts_with("berth: ")) && found.last() == Some(&"3333"), "room {room}: {text}");
    }
}

#[test]
fn rotation_moves_a_cut_record_into_the_new_file() {
    let record = PREFIX + 4 + 1;
    let (old, new) = (Disk::with_room(record + 7), Disk::with_room(10_000));
    let (mut log, mut lines) = (Log::new(Some(old.clone())), Lines::default());
    write(&mut log, &mut lines, "1111\n2222\n");
    log.reopen(new.clone());
    write(&mut log, &mut lines, "3333\n");
    assert_eq!(contents(&old.text()[..record]), ["1111"]);
    assert_eq!(old.text().len(), record + 7);
    assert_eq!(contents(&new.text()), ["2222", "3333"]);
    assert_eq!(log.dropped(), 0);
}

#[test]
fn rotation_loses_nothing_and_doubles_nothing() {
    let (old, new) = (Disk::with_room(usize::MAX), Disk::with_room(usize::MAX));
    let (mut log, mut lines) = (Log::new(Some(old.clone())), Lines::default());
    write(&mut log, &mut lines, "1111\n22");
    log.reopen(new.clone());
    write(&mut log, &mut lines, "22\n");
    assert_eq!((contents(&old.text()), contents(&new.text())), (vec!["1111"], vec!["2222"]));
}

#[test]
fn closing_counts_what_never_fitted() {
    let disk = Disk::with_room(7);
    let (mut log, mut lines) = (Log::new(Some(disk)), Lines::default());
    write(&mut log, &mut lines, "1111\n2222\n");
    log.close();
    assert_eq!(log.dropped() as usize, 2 * (PREFIX + 5) - 7);
    let mut none = Log::<Disk>::new(None);
    write(&mut none, &mut lines, "x\n");
    none.close();
    assert_eq!(none.dropped(), 0);
}
