//! What time does to a connection: pings, idleness, the probe's limit, and the limits of its end. Part of [`State`]. Must not: sleep;
//! it says when it wants to be asked again.
use super::state::{Phase, State};
use berth_model::{Error, ErrorKind};
use std::time::Duration;
use tokio::time::Instant;

/// How long after GOAWAY the peer's own end is waited for. Its bytes are read and thrown away meanwhile: an end with unread bytes
/// resets the transport, and what is still in its buffers is lost.
const LINGER: Duration = Duration::from_secs(60);
/// How long after a failed write what the peer had sent is read.
const BROKEN: Duration = Duration::from_secs(2);
/// How long a peer that broke the protocol has to take the GOAWAY that says so.
const FAIL_WITHIN: Duration = Duration::from_secs(1);
/// While the connection is not read, its end is not seen either; writing to a peer that is gone shows it.
const PAUSED_PING: Duration = Duration::from_secs(10);

/// When what happened last.
#[derive(Debug)]
pub struct Times {
    heard: Instant,
    active: Instant,
    progress: Instant,
    pinged: Instant,
    told: Instant,
    /// The probe's limit.
    pub probe: Option<Instant>,
    /// Since when the connection is not read.
    pub paused: Option<Instant>,
}

impl Times {
    /// All of it now.
    pub fn new() -> Self {
        let now = Instant::now();
        Self { heard: now, active: now, progress: now, pinged: now, told: now, probe: None, paused: None }
    }

    /// A frame came; `active`: no PING.
    pub fn heard(&mut self, active: bool) {
        self.heard = Instant::now();
        if active {
            self.active = self.heard;
        }
    }

    /// The peer took something; `active`: data.
    pub fn sent(&mut self, active: bool) {
        self.progress = Instant::now();
        if active {
            self.active = self.progress;
        }
    }

    /// The orderly end begins.
    pub fn closing(&mut self) {
        self.progress = Instant::now();
    }

    /// GOAWAY is written, or nothing can be.
    pub fn told(&mut self) {
        self.told = Instant::now();
    }
}

impl State {
    /// Does what is due, and says when to ask again at the latest.
    pub fn tick(&mut self, now: Instant) -> Option<Instant> {
        match self.phase {
            Phase::Open => self.tick_open(now),
            Phase::Closing => {
                let limit = if self.error.is_some() { FAIL_WITHIN } else { self.limits.close_within };
                self.end_at(now, self.times.progress + limit, true)
            }
            Phase::Broken => self.end_at(now, self.times.told + BROKEN, false),
            Phase::Told => self.end_at(now, self.times.told + LINGER, false),
            Phase::Ended => None,
        }
    }

    fn end_at(&mut self, now: Instant, limit: Instant, early: bool) -> Option<Instant> {
        if now < limit {
            return Some(limit);
        }
        let error =
            || Error::new(ErrorKind::DeadlineExceeded, "SPDY connection: the peer does not take what was written");
        self.end(early.then(error));
        None
    }

    fn tick_open(&mut self, now: Instant) -> Option<Instant> {
        if self.times.probe.is_some_and(|limit| now >= limit) {
            self.peer_ignores();
        }
        let idle = self.limits.idle.map(|idle| self.times.active + idle);
        if idle.is_some_and(|limit| now >= limit) {
            let message = "SPDY connection: nothing came or went for as long as it may be idle";
            self.fail(Error::new(ErrorKind::DeadlineExceeded, message));
            return Some(now);
        }
        let every = self.limits.ping_every.map(|every| self.times.heard.max(self.times.pinged) + every);
        let paused = self.times.paused.map(|since| since.max(self.times.pinged) + PAUSED_PING);
        if [every, paused].into_iter().flatten().any(|due| now >= due) {
            self.times.pinged = now;
            self.ping(true);
            return Some(now);
        }
        [self.times.probe, idle, every, paused].into_iter().flatten().min()
    }
}
