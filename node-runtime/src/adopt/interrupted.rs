//! Ends of an operation that are no fault of what it was for: trying the same again may come off.
//!
//! Owns: which these are. Must not: decide whether it is tried again; whoever has begun the operation does.
use super::now_seconds;
use berth_adopt::plan::Plan;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;
use tokio::net::UnixStream;

/// How long a runtime that was killed may take to serve its socket again.
const COMES_BACK: Duration = Duration::from_secs(10);
/// How long it may take to take a connection.
const CONNECTS: Duration = Duration::from_secs(2);
const PAUSE: Duration = Duration::from_millis(100);

/// Such an end; why, as a sentence.
#[derive(Debug)]
pub(super) struct Interrupted(pub(super) String);

impl fmt::Display for Interrupted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Interrupted {}

/// Why an operation walks back.
#[derive(Debug, Clone, Copy)]
pub(super) struct Why<'a> {
    /// As a sentence.
    pub(super) reason: &'a str,
    /// Whether that is nobody's fault who counts.
    pub(super) interrupted: bool,
}

impl<'a> Why<'a> {
    /// What it was for does not come off, or a person does not want it.
    pub(super) fn failed(reason: &'a str) -> Self {
        Self { reason, interrupted: false }
    }

    /// It was ended from outside.
    pub(super) fn interrupted(reason: &'a str) -> Self {
        Self { reason, interrupted: true }
    }

    /// Whoever did it is gone. One that was beyond its deadline was ended for that, and has failed.
    pub(super) fn left(reason: &'a str, plan: Option<&Plan>) -> Self {
        let late = plan.is_some_and(|plan| now_seconds() > plan.deadline);
        Self { reason, interrupted: !late }
    }
}

/// Who served the sockets of both runtimes at a moment.
pub(super) struct Served(Vec<(PathBuf, i32)>);

impl Served {
    /// Now.
    pub(super) async fn now(plan: &Plan) -> Self {
        let mut all = Vec::new();
        for runtime in [&plan.from, &plan.to] {
            if let Some(pid) = server(&runtime.socket).await {
                all.push((runtime.socket.clone(), pid));
            }
        }
        Self(all)
    }

    /// Waits until all answer again where one of them does not. Whether one of them is another process since, and all are there.
    pub(super) async fn came_back(&self) -> bool {
        let end = tokio::time::Instant::now() + COMES_BACK;
        let mut others = false;
        for (socket, before) in &self.0 {
            let pid = loop {
                match server(socket).await {
                    Some(pid) => break pid,
                    None if tokio::time::Instant::now() > end => return false,
                    None => tokio::time::sleep(PAUSE).await,
                }
            };
            others |= pid != *before;
        }
        others
    }
}

/// The process that listens there (unix(7), `SO_PEERCRED`).
async fn server(socket: &std::path::Path) -> Option<i32> {
    let stream = tokio::time::timeout(CONNECTS, UnixStream::connect(socket)).await.ok()?.ok()?;
    stream.peer_cred().ok()?.pid()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;
    use std::process::Command;

    /// Another process that listens at that place for a moment.
    fn listens(socket: &std::path::Path) -> std::process::Child {
        let script =
            "use Socket; socket(S,PF_UNIX,SOCK_STREAM,0); bind(S,sockaddr_un($ARGV[0])); listen(S,8); sleep 60";
        Command::new("perl").args(["-e", script]).arg(socket).spawn().unwrap()
    }

    #[tokio::test]
    async fn a_runtime_that_was_killed_and_is_there_again_is_known() {
        let dir = tempfile::tempdir().unwrap();
        let (ours, theirs) = (dir.path().join("a.sock"), dir.path().join("b.sock"));
        let _stays = UnixListener::bind(&ours).unwrap();
        let mut first = listens(&theirs);
        let ready = async |socket: &std::path::Path| {
            while server(socket).await.is_none() {
                tokio::time::sleep(PAUSE).await;
            }
        };
        ready(&theirs).await;
        let served = Served(
            [(ours.clone(), server(&ours).await.unwrap()), (theirs.clone(), server(&theirs).await.unwrap())].into(),
        );
        assert!(!served.came_back().await, "both are who they were");
        first.kill().unwrap();
        first.wait().unwrap();
        std::fs::remove_file(&theirs).unwrap();
        let mut second = listens(&theirs);
        assert!(served.came_back().await);
        second.kill().unwrap();
        second.wait().unwrap();
    }
}
