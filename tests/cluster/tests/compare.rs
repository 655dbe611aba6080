//! The same kubectl calls on Berth and on containerd 2.4, in one run, on two clusters side by side. Every difference must have its place in
//! docs/kubectl-differences.md, under a heading of the call's name, and every heading there its difference.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)] // A case fails by panicking.

#[path = "compare/calls.rs"]
mod calls;
#[path = "compare/costs.rs"]
mod costs;
#[path = "compare/normal.rs"]
mod normal;
#[path = "compare/pods.rs"]
mod pods;
#[path = "compare/streaming.rs"]
mod streaming;
#[path = "compare/vanished.rs"]
mod vanished;

use berth_cluster_tests::cluster::Cluster;
use berth_cluster_tests::kubectl::Kubectl;
use berth_cluster_tests::runtime::Kind;
use berth_cluster_tests::suite::{self, Case};
use calls::Call;
use std::collections::BTreeSet;
use std::path::Path;
use std::time::Instant;

/// `vanished` counts descriptors: it is first, when no other case's pods are being taken away.
const CASES: &[Case<Both>] =
    &[Case::alone("vanished", vanished), Case::alone("answers", answers), Case::alone("costs", costs::costs)];

/// Two clusters of the same Kubernetes.
pub struct Both {
    berth: Cluster,
    containerd: Cluster,
}

impl Both {
    fn start() -> Self {
        let (berth, containerd) = at_once(|| Cluster::start(Kind::Berth), || Cluster::start(Kind::Containerd));
        Self { berth, containerd }
    }

    fn finish(self) {
        let Self { berth, containerd } = self;
        at_once(|| berth.finish(), || containerd.finish());
    }
}

/// Both at the same time; what one panics with is told here.
fn at_once<A: Send, B: Send>(left: impl FnOnce() -> A + Send, right: impl FnOnce() -> B + Send) -> (A, B) {
    std::thread::scope(|scope| {
        let right = scope.spawn(right);
        let left = left();
        (left, right.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    })
}

fn answers(both: &Both) {
    let (berth, containerd) = at_once(|| pods::make(&both.berth), || pods::make(&both.containerd));
    compared(calls::ALL, &berth.kubectl, &containerd.kubectl);
    let known = |name: &String| calls::ALL.iter().any(|call| call.name == name);
    let unknown: Vec<String> = headings().into_iter().filter(|name| !known(name)).collect();
    assert!(unknown.is_empty(), "docs/kubectl-differences.md has headings that name no call: {unknown:?}");
}

/// A client that is killed in the middle of its stream. What becomes of its command is Berth's to answer for; on containerd it is not the same in
/// each run, and is told.
fn vanished(both: &Both) {
    let (berth, containerd) = at_once(|| vanished::pod(&both.berth), || vanished::pod(&both.containerd));
    for (transport, must_end) in vanished::WAYS {
        let other = vanished::client_is_killed(&containerd.kubectl, transport);
        println!("     {transport:?} on containerd: {other}");
        let ours = vanished::client_is_killed(&berth.kubectl, transport);
        println!("     {transport:?} on Berth: {ours}");
        assert_eq!(ours.left, Vec::<String>::new(), "{transport:?}: left of a session whose client was killed");
        assert!(ours.ended || !must_end, "{transport:?}: {ours}");
    }
}

/// Makes these calls on both. Each difference needs its heading, and each heading of one of these calls its difference.
fn compared(calls: &[Call], berth: &Kubectl<'_>, containerd: &Kubectl<'_>) {
    let explained: BTreeSet<String> =
        headings().into_iter().filter(|name| calls.iter().any(|call| call.name == name)).collect();
    let mut different = BTreeSet::new();
    for call in calls {
        let ((left, left_time), (right, right_time)) = (timed(|| (call.run)(berth)), timed(|| (call.run)(containerd)));
        let (left, right) = (normal::form(&left), normal::form(&right));
        let verdict = if left == right { "same" } else { "different" };
        println!("     {verdict:9} {:24} berth {left_time:.2} s, containerd {right_time:.2} s", call.name);
        if left != right {
            println!("{}", normal::difference(&left, &right));
            different.insert(call.name.to_owned());
        }
    }
    let unexplained: Vec<_> = different.difference(&explained).collect();
    let gone: Vec<_> = explained.difference(&different).collect();
    assert!(unexplained.is_empty(), "not explained in docs/kubectl-differences.md: {unexplained:?}");
    assert!(gone.is_empty(), "docs/kubectl-differences.md explains differences that are no more: {gone:?}");
}

fn timed<T>(body: impl FnOnce() -> T) -> (T, f64) {
    let began = Instant::now();
    let value = body();
    (value, began.elapsed().as_secs_f64())
}

/// The page's headings of the second level, in backticks: names of calls.
fn headings() -> BTreeSet<String> {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/kubectl-differences.md");
    let text = std::fs::read_to_string(&page).unwrap_or_else(|e| panic!("{}: {e}", page.display()));
    let names = text.lines().filter_map(|line| line.strip_prefix("## `")?.strip_suffix('`'));
    names.map(str::to_owned).collect()
}

fn main() {
    berth_cluster_tests::dispatch();
    suite::main(CASES, Both::start, Both::finish);
}
