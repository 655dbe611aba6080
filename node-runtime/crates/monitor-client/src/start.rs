//! The conversation between daemon and init while a task is set up.
//!
//! Owns: its order, its time limit, its failures. Must not: move processes between cgroups or decide to go on; it hands back control
//! at the points where somebody else has work to do. Dropping a [`Start`] before [`Start::go`] makes init end the child.
use crate::CALL_LIMIT;
use crate::channel::Channel;
use berth_model::{Error, ErrorKind, Phase, Phases, Result, ResultExt};
use berth_monitor_api::sync::{self, FromInit, Identity, MAX_MESSAGE, ToInit};
use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};
use tokio::time::timeout;

/// Most phases that are kept of one start.
const MAX_PHASES: usize = 100;

/// A point at which the caller has control.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The child exists and waits to be moved into its cgroup; then [`Start::continue_`].
    Paused {
        /// Its process id.
        pid: u32,
    },
    /// All is set up; then [`Start::go`].
    Ready {
        /// Process id of the child.
        pid: u32,
        /// Who it will be.
        identity: Identity,
    },
    /// The program runs.
    Started,
    /// A sandbox's namespaces are made.
    Made {
        /// Process id of the pod's init, with a shared pid namespace.
        pid: Option<u32>,
    },
}

/// errno-base.h
const EIO: i32 = 5;

/// What init said of its failure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// Step name.
    pub step: String,
    /// The errno, or 0.
    pub errno: i32,
    /// In words.
    pub detail: String,
}

/// A start in progress.
#[derive(Debug)]
pub struct Start {
    id: String,
    channel: Channel,
    init_pid: u32,
    limit: Duration,
    begun: Instant,
    phases: Phases,
    failure: Option<Failure>,
    exec_next: bool,
}

impl Start {
    pub(super) fn new(id: &str, socket: OwnedFd, init_pid: u32) -> Result<Self> {
        let channel = Channel::new(socket).context(|| "socket of the start")?;
        Ok(Self {
            id: id.to_owned(),
            channel,
            init_pid,
            limit: CALL_LIMIT,
            begun: Instant::now(),
            phases: Phases::default(),
            failure: None,
            exec_next: false,
        })
    }

    /// Process id of init.
    pub fn init_pid(&self) -> u32 {
        self.init_pid
    }

    /// How long [`Start::next`] waits for one event; [`CALL_LIMIT`] unless set.
    pub fn set_limit(&mut self, limit: Duration) {
        self.limit = limit;
    }

    /// When init had been executed; the steps' offsets count from here.
    pub fn begun(&self) -> Instant {
        self.begun
    }

    /// The steps that init has reported. Their offsets are those of the report's arrival, which init sends at a step's end.
    pub fn phases(&self) -> &Phases {
        &self.phases
    }

    /// What init said before it gave up, if it did.
    pub fn failure(&self) -> Option<&Failure> {
        self.failure.as_ref()
    }

    /// Waits for the next event. After an error the start is over: `Internal` or as the errno says, with init's own words, for a
    /// step that failed; `Internal` for a death without words (the exit record tells how, and whether memory ran out);
    /// `DeadlineExceeded` if nothing came in time.
    pub async fn next(&mut self) -> Result<Event> {
        match timeout(self.limit, self.event()).await {
            Ok(event) => event,
            Err(_) => {
                let text =
                    format!("{}: set-up did not go on within {} s{}", self.id, self.limit.as_secs(), self.after());
                Err(Error::new(ErrorKind::DeadlineExceeded, text))
            }
        }
    }

    /// The child is in its cgroup.
    pub async fn continue_(&mut self) -> Result<()> {
        self.say(ToInit::Continue).await
    }

    /// Execute the program.
    pub async fn go(&mut self) -> Result<()> {
        self.say(ToInit::Go).await
    }

    async fn say(&mut self, message: ToInit) -> Result<()> {
        let bytes = sync::encode(&message);
        match timeout(self.limit, self.channel.send(&bytes, &[])).await {
            Ok(Ok(())) => Ok(()),
            // The other end is gone; what it said before is still to be read.
            Ok(Err(_)) => match self.next().await {
                Err(e) => Err(e),
                Ok(_) => Err(self.died()),
            },
            Err(_) => Err(Error::new(ErrorKind::DeadlineExceeded, format!("{}: init does not listen", self.id))),
        }
    }

    async fn event(&mut self) -> Result<Event> {
        let mut buffer = vec![0; MAX_MESSAGE];
        loop {
            let length = match self.channel.recv(&mut buffer).await {
                Ok((length, _)) => length,
                Err(e) if e.kind() == io::ErrorKind::ConnectionReset => 0,
                Err(e) => return Err(Error::from(e).context(format!("{}: socket of the start", self.id))),
            };
            if length == 0 {
                return if self.exec_next { Ok(Event::Started) } else { Err(self.died()) };
            }
            let message = sync::decode(&buffer[..length]);
            let message = message.map_err(|e| Error::internal(format!("{}: message of init: {e}", self.id)))?;
            match message {
                FromInit::Phase { name, micros } => {
                    if self.phases.0.len() < MAX_PHASES {
                        let at = berth_model::micros(self.begun.elapsed()).saturating_sub(micros);
                        self.phases.0.push(Phase { name, at, micros });
                    }
                }
                FromInit::Paused { pid } => return Ok(Event::Paused { pid }),
                FromInit::Ready { pid, identity } => return Ok(Event::Ready { pid, identity }),
                FromInit::ExecNext => self.exec_next = true,
                FromInit::Done { pid } => return Ok(Event::Made { pid }),
                FromInit::Failed { step, errno, detail } => return Err(self.failed(Failure { step, errno, detail })),
            }
        }
    }

    fn failed(&mut self, failure: Failure) -> Error {
        let Failure { step, errno, detail } = &failure;
        let error = match *errno {
            0 => Error::internal(format!("{step}: {detail}")),
            errno => {
                let error = io::Error::from_raw_os_error(errno);
                let kind = Error::from(io::Error::from_raw_os_error(errno)).kind();
                let said = error.to_string();
                // Init usually says what the errno says.
                let why = said.split(" (os error").next().unwrap_or_default();
                let text = if detail.contains(why) { detail.clone() } else { format!("{detail}: {why}") };
                match exec_code(step, errno) {
                    // The command of the request is at fault; nobody need try again.
                    Some(code) => Error::new(ErrorKind::InvalidArgument, text).with_exec_code(code),
                    None => Error::new(kind, format!("{step}: {text}")),
                }
            }
        };
        self.failure = Some(failure);
        error
    }

    fn died(&self) -> Error {
        Error::internal(format!("{}: the process ended during set-up{}", self.id, self.after()))
    }

    fn after(&self) -> String {
        self.phases.0.last().map_or_else(String::new, |phase| format!(", after the step {}", phase.name))
    }
}

/// The exit code that shells give a program which is not there, or is and cannot be executed. `None` where the machine is at
/// fault, not the program.
fn exec_code(step: &str, errno: i32) -> Option<i32> {
    use io::ErrorKind as Kind;
    if step != sync::PROGRAM_STEP {
        return None;
    }
    match io::Error::from_raw_os_error(errno).kind() {
        Kind::NotFound | Kind::NotADirectory => Some(127),
        Kind::OutOfMemory | Kind::StorageFull | Kind::TimedOut | Kind::WouldBlock => None,
        _ if errno == EIO => None,
        _ => Some(126),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use berth_sys::socket::{self, Wait};
    use std::os::fd::AsFd;

    fn start() -> (Start, OwnedFd) {
        let (ours, init) = socket::pair().unwrap();
        (Start::new("c1", ours, 7).unwrap(), init)
    }

    fn say(init: &OwnedFd, message: &FromInit) {
        socket::send(init.as_fd(), &sync::encode(message), &[], Wait::Yes).unwrap();
    }

    fn phase(name: &str) -> FromInit {
        FromInit::Phase { name: name.to_owned(), micros: 5 }
    }

    #[tokio::test]
    async fn a_whole_start() {
        let (mut start, init) = start();
        say(&init, &phase("start/clone"));
        say(&init, &FromInit::Paused { pid: 9 });
        assert_eq!(start.next().await.unwrap(), Event::Paused { pid: 9 });
        start.continue_().await.unwrap();
        let identity = Identity { uid: 1, gid: 2, groups: vec![2] };
        say(&init, &FromInit::Ready { pid: 9, identity: identity.clone() });
        assert_eq!(start.next().await.unwrap(), Event::Ready { pid: 9, identity });
        start.go().await.unwrap();
        let mut buffer = [0; 64];
        for expected in [ToInit::Continue, ToInit::Go] {
            let (n, _) = socket::recv(init.as_fd(), &mut buffer, Wait::Yes).unwrap();
            assert_eq!(sync::decode::<ToInit>(&buffer[..n]), Ok(expected));
        }
        say(&init, &FromInit::ExecNext);
        drop(init);
        assert_eq!(start.next().await.unwrap(), Event::Started);
        assert_eq!(start.phases().total_micros(), 5);
    }

    #[tokio::test]
    async fn failures_keep_their_words() {
        let (mut start, init) = start();
        say(&init, &FromInit::Failed { step: "exec".into(), errno: 2, detail: "/bin/nope".into() });
        let error = start.next().await.unwrap_err();
        assert_eq!(error.message(), "exec: /bin/nope: No such file or directory");
        assert_eq!(start.failure().unwrap().errno, 2);
        let (mut start, init) = self::start();
        say(
            &init,
            &FromInit::Failed { step: "mount".into(), errno: 28, detail: "tmpfs: No space left on device".into() },
        );
        let error = start.next().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ResourceExhausted);
        assert_eq!(error.message(), "mount: tmpfs: No space left on device");
    }

    #[tokio::test]
    async fn programs_that_cannot_be_executed_are_told_apart() {
        for (step, errno, code) in [
            (sync::PROGRAM_STEP, 2, Some(127)),
            (sync::PROGRAM_STEP, 20, Some(127)),
            (sync::PROGRAM_STEP, 13, Some(126)),
            (sync::PROGRAM_STEP, 8, Some(126)),
            (sync::PROGRAM_STEP, 12, None),
            (sync::PROGRAM_STEP, EIO, None),
            ("exec", 13, None),
            ("mounts", 2, None),
        ] {
            let (mut start, init) = start();
            say(&init, &FromInit::Failed { step: step.into(), errno, detail: "exec \"x\"".into() });
            let error = start.next().await.unwrap_err().context("further up");
            assert_eq!(error.exec_code(), code, "{step} {errno}");
            assert_eq!(error.kind() == ErrorKind::InvalidArgument, code.is_some(), "{step} {errno}");
        }
    }

    #[tokio::test]
    async fn silence_and_death_are_told_apart() {
        let (mut start, init) = start();
        say(&init, &phase("start/mounts"));
        start.set_limit(Duration::from_millis(20));
        assert_eq!(start.next().await.unwrap_err().kind(), ErrorKind::DeadlineExceeded);
        drop(init);
        let error = start.next().await.unwrap_err();
        assert!(error.message().ends_with("ended during set-up, after the step start/mounts"), "{error}");
        assert!(start.go().await.is_err());
    }
}
