//! SIGKILL to the product's processes at random moments: on the way to Berth, while it is told something else, and on the way back. When the
//! kills stop, everything must become as it is meant by itself.
//!
//! Owns: what is changed, who is killed and when. Must not: mend anything but what a node's init, its kubelet's service and an API server's would.
//! `BERTH_CHAOS_SEED` has the same choices made again (the moments they meet are the machine's), `BERTH_CHAOS_ROUNDS` more or fewer rounds.
use crate::chain::{self, CONFIG};
use crate::site::{NAMESPACE, Site};
use crate::steering::{condition, operator};
use crate::wish::Wish;
use berth_cluster_tests::kubelet::NODE_NAME;
use berth_cluster_tests::processes::{self, Process};
use berth_cluster_tests::{cluster, images, script_kubelet, wait_for};
use nix::sys::signal::Signal;
use serde_json::json;
use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Has the program run this and nothing else.
pub const WORD: &str = "--chaos";
/// Rounds, unless told otherwise. The first takes the node over, the last gives it back.
const ROUNDS: u64 = 10;
/// When the next round is the last one, unless a number of rounds was asked for: the case is to be over in twelve minutes.
const LONG: Duration = Duration::from_secs(480);
/// Kills of a round, at least and at most.
const KILLS: (u64, u64) = (2, 6);
/// Longest pause before one, and before a killed API server is started again, in milliseconds.
const PAUSE: u64 = 8000;
const AWAY: u64 = 4000;
/// How long after the last kill everything may take to be as it is meant. A drain, two starts of a kubelet and a lease are in it.
const HEALS: Duration = Duration::from_secs(300);
/// How often in one round a revision may be given up because of a kill. The next ones meet no kill.
const GIVEN_UP: usize = 2;
/// How long a request to try again may take until it is seen to be followed.
const ASKED: Duration = Duration::from_secs(20);
/// How long nobody of the product who could go on may run before a node's init starts a supervisor.
const NOBODY: Duration = Duration::from_secs(15);
const API_SERVER: &str = "kube-apiserver";
const KUBELET: &str = "kubelet";
const OPERATOR: &str = "berth-operator";

/// Whoever may be killed, and how it is told from others: by its program and one of its words, or by its program alone. What lives briefly stands more often.
const VICTIMS: [(&str, &str); 12] = [
    ("berth-agent", ""),
    ("berth-agent", ""),
    (OPERATOR, ""),
    ("berth", "adopt"),
    ("berth", "adopt"),
    ("berth", "adopt"),
    ("berth", "deadman"),
    ("berth", "serve"),
    ("berth", "supervise"),
    ("berth", "streaming"),
    (KUBELET, ""),
    (API_SERVER, ""),
];

/// SplitMix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014).
pub struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Another row of numbers: how many are taken of it changes nothing of this one.
    fn apart(&mut self) -> Self {
        Self(self.next())
    }

    /// A number from the first up to and without the second.
    pub fn between(&mut self, from: u64, to: u64) -> u64 {
        from + self.next() % (to - from)
    }
}

/// What came of it.
#[derive(Default)]
struct Tally {
    kills: BTreeMap<String, usize>,
    given_up: usize,
    by_init: usize,
}

/// A number from the environment.
fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|e| panic!("{name}={text}: {e}")))
}

pub fn heals_by_itself(site: &Site) {
    let now = || u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap();
    let seed = number("BERTH_CHAOS_SEED").unwrap_or_else(now);
    let (asked, began) = (number("BERTH_CHAOS_ROUNDS"), Instant::now());
    let rounds = asked.unwrap_or(ROUNDS).max(2);
    println!("  BERTH_CHAOS_SEED={seed} BERTH_CHAOS_ROUNDS={rounds}");
    let (mut chance, mut wish, mut tally) = (Chance(seed), Wish::default(), Tally::default());
    script_kubelet::keep(site.space());
    chain::is_installed(site);
    site.kubectl("default").apply(&chain::web());
    for round in 1..=rounds {
        let mut chance = chance.apart();
        let last = round == rounds || (asked.is_none() && began.elapsed() > LONG);
        let what = match round {
            1 => wish.taken_over(true),
            _ if last => wish.taken_over(false),
            _ => wish.changed(&mut chance.apart()),
        };
        println!("  round {round}: {what}");
        wish.tell(site);
        for _ in 0..chance.between(KILLS.0, KILLS.1 + 1) {
            std::thread::sleep(Duration::from_millis(chance.between(0, PAUSE)));
            has_a_kubelet(site);
            kill_one(site, &mut chance.apart(), &mut tally);
        }
        site.timed("everything is as it is meant", || heals(site, &wish, &mut tally));
        fresh_pod_runs(site, round);
        if last {
            break;
        }
    }
    println!(
        "  killed: {:?}; revisions given up and tried again: {}; nobody was left, and the node's init began: {}",
        tally.kills, tally.given_up, tally.by_init
    );
    // What is left is a node that is given back already; its release goes as any other.
    chain::uninstalls(site);
}

/// Kills one of those that run, if any of that kind does; the kubelet and the API server are started again, as a node's services are.
fn kill_one(site: &Site, chance: &mut Chance, tally: &mut Tally) {
    let all = processes::of(site.space());
    let of = |(program, word): (&str, &str)| {
        let is = |p: &&Process| p.words[0] == program && (word.is_empty() || p.words.iter().any(|w| w == word));
        // The dead-man is an adopter by its words.
        let other = |p: &&Process| word != "adopt" || !p.words.iter().any(|w| w == "deadman");
        all.iter().filter(is).filter(other).cloned().collect::<Vec<_>>()
    };
    let there: Vec<_> = VICTIMS.iter().filter(|victim| !of(**victim).is_empty()).collect();
    let victim = **usize::try_from(chance.between(0, there.len() as u64)).ok().and_then(|n| there.get(n)).unwrap();
    let found = of(victim);
    let mut process = found[usize::try_from(chance.between(0, found.len() as u64)).unwrap()].clone();
    if victim.0 == OPERATOR
        && let Ok(lease) = site.kubectl(NAMESPACE).get("lease", "berth-operator")
        && let Some(leader) = operator(site, lease["spec"]["holderIdentity"].as_str().unwrap_or_default())
    {
        process = leader;
    }
    let words: Vec<&str> = process.words.iter().map(String::as_str).filter(|w| !w.starts_with(['-', '/'])).collect();
    let name = if victim.1.is_empty() { victim.0.to_owned() } else { format!("{} {}", victim.0, victim.1) };
    println!("    {} killed: {} {}", stamp(), process.pid, words[..words.len().min(4)].join(" "));
    *tally.kills.entry(name).or_default() += 1;
    match victim.0 {
        API_SERVER => {
            site.plane().kill_api_server();
            std::thread::sleep(Duration::from_millis(chance.between(0, AWAY)));
            site.plane().start_api_server_again(site.space(), site.logs());
        }
        KUBELET => {
            process.signal(Signal::SIGKILL);
            // Of one that has ended nothing is left to read.
            while std::fs::read(format!("/proc/{}/cmdline", process.pid)).is_ok_and(|words| !words.is_empty()) {
                std::thread::sleep(Duration::from_millis(2));
            }
            script_kubelet::revive(site.space());
        }
        _ => process.signal(Signal::SIGKILL),
    }
}

/// The time of day, as the logs have it.
fn stamp() -> String {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() % 86400;
    format!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60)
}

/// Waits until everything is as it is meant. A revision that a kill has had given up, which is told, is tried again as an administrator does.
fn heals(site: &Site, wish: &Wish, tally: &mut Tally) {
    let (mut given_up, mut asked, mut nobody) = (0, None::<Instant>, None::<Instant>);
    wait_for(site, "everything is as it is meant", HEALS, || {
        has_a_kubelet(site);
        if !nobody_is_left(site) {
            nobody = None;
        } else if nobody.get_or_insert_with(Instant::now).elapsed() > NOBODY {
            nobody = None;
            tally.by_init += 1;
            supervise(site);
        }
        if let Some(why) = gave_up(site)? {
            if asked.is_none_or(|asked| asked.elapsed() > ASKED) {
                println!("    {} given up: {why}", stamp());
                given_up += 1;
                assert!(given_up <= GIVEN_UP, "it is given up again and again, and nothing is killed any more: {why}");
                site.kubectl("default").run(&[
                    "annotate",
                    "runtimeconfig",
                    CONFIG,
                    "berth.dev/retry=all",
                    "--overwrite",
                ]);
                asked = Some(Instant::now());
            }
            return Err(why);
        }
        wish.holds(site)
    });
    tally.given_up += given_up;
}

/// What a RuntimeConfig says whose revision its node gave up; the node must say it too.
fn gave_up(site: &Site) -> Result<Option<String>, String> {
    let config = site.kubectl("default").get("runtimeconfig", CONFIG)?;
    let (ready, degraded) = (condition(&config, "Ready"), condition(&config, "Degraded"));
    let present = ready["observedGeneration"] == config["metadata"]["generation"];
    if !present || !["RolledBack", "Halted", "NothingToGoBackTo"].iter().any(|reason| ready["reason"] == *reason) {
        return Ok(None);
    }
    let node = site.kubectl("default").get("runtimenode", NODE_NAME)?;
    let failed = &node["status"]["failed"];
    if failed["revision"] != config["status"]["targetRevision"] {
        return Err(format!("it is given up, and its node does not say why: {config} {node}"));
    }
    Ok(Some(format!("{}: {} ({})", failed["reason"], failed["message"], degraded["message"])))
}

/// What the kubelet's service does: one that has ended is started again, as it ends where its runtime does not answer at its start.
fn has_a_kubelet(site: &Site) {
    if !processes::of(site.space()).iter().any(|p| p.words[0] == KUBELET) {
        script_kubelet::revive(site.space());
    }
}

/// Nobody runs who could go on: no supervisor, nobody at an operation, and no agent, whom no kubelet starts where its runtime does not run.
fn nobody_is_left(site: &Site) -> bool {
    let goes_on = |p: &Process| {
        let words = ["supervise", "adopt"];
        p.words[0] == "berth-agent" || (p.words[0] == "berth" && p.words.iter().any(|w| words.contains(&w.as_str())))
    };
    !processes::of(site.space()).iter().any(goes_on)
}

/// What the init of a node without systemd is for (docs/adopt.md, "A reboot in the middle").
fn supervise(site: &Site) {
    let program = site.base().join("opt/current/berth").display().to_string();
    let root = site.root().display().to_string();
    println!("    {} nobody is left, and the node's init starts a supervisor", stamp());
    let line = format!("setsid {program} --root {root} supervise --program {program} > /dev/null 2>&1 < /dev/null &");
    assert!(site.space().command("tools", "sh").args(["-c", &line]).status().unwrap().success());
}

fn fresh_pod_runs(site: &Site, round: u64) {
    let (kubectl, name) = (site.kubectl("default"), format!("fresh-{round}"));
    let spec = json!({"terminationGracePeriodSeconds": 1, "containers": [{"name": "main", "image": images::WEB}]});
    kubectl.apply(&cluster::pod(&name, &spec));
    site.wait_object_in("default", "pod", &name, "is ready", |pod| cluster::has_condition(pod, "Ready"));
    kubectl.run(&["delete", "pod", &name, "--wait"]);
}
