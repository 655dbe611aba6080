//! The streaming process's side of the conversation with the daemon.
//!
//! Owns: matching replies to requests, noticing the daemon's end. Must not: know clients.
use crate::protocol::{self, Kind, MAX_MESSAGE, Refusal, Reply, Request, Session, Size, Started};
use berth_model::{Result, ResultExt};
use berth_monitor_client::channel::Channel;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

/// Why there is no session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Denied {
    /// The daemon says no, and why.
    Refused(Refusal, String),
    /// The daemon is gone.
    Gone,
}

/// Who waits for which reply.
type Waiting = HashMap<u32, oneshot::Sender<(Reply, Vec<OwnedFd>)>>;

/// The conversation. Copies share it.
#[derive(Debug, Clone)]
pub struct Daemon(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    channel: Channel,
    next_tag: AtomicU32,
    waiting: Mutex<Waiting>,
    ended: CancellationToken,
}

impl Daemon {
    /// Takes over the socket and starts to listen to it.
    pub fn new(socket: OwnedFd) -> Result<Self> {
        let channel = Channel::new(socket).context(|| "socket to the daemon")?;
        let shared = Arc::new(Shared {
            channel,
            next_tag: AtomicU32::new(1),
            waiting: Mutex::default(),
            ended: CancellationToken::new(),
        });
        tokio::spawn(Arc::clone(&shared).read());
        Ok(Self(shared))
    }

    /// Resolves when the daemon is gone; at once if it is already.
    pub async fn ended(&self) {
        self.0.ended.cancelled().await;
    }

    /// Tells the address.
    pub async fn listening(&self, address: SocketAddr) -> Result<()> {
        let bytes = protocol::encode(&Request::Listening { address })?;
        self.0.channel.send(&bytes, &[]).await.context(|| "tell the daemon the address")
    }

    /// Uses a token up.
    pub async fn take(&self, token: &str, kind: Kind) -> Result<Session, Denied> {
        let request = |tag| Request::Take { tag, token: token.to_owned(), kind };
        match self.ask(request).await?.0 {
            Reply::Granted { session, .. } => Ok(session),
            other => Err(denied(other)),
        }
    }

    /// Begins the session of a token that was taken: what has begun, and its descriptors.
    pub async fn start(&self, token: &str, size: Option<Size>) -> Result<(Started, Vec<OwnedFd>), Denied> {
        let request = |tag| Request::Start { tag, token: token.to_owned(), size };
        match self.ask(request).await? {
            (Reply::Started { started, .. }, fds) => Ok((started, fds)),
            (other, _) => Err(denied(other)),
        }
    }

    /// Gives a token up that was taken.
    pub async fn abandon(&self, token: &str) {
        if let Ok(bytes) = protocol::encode(&Request::Abandon { token: token.to_owned() }) {
            // If the daemon is gone, so is the token.
            let _ = self.0.channel.send(&bytes, &[]).await;
        }
    }

    async fn ask(&self, request: impl FnOnce(u32) -> Request) -> Result<(Reply, Vec<OwnedFd>), Denied> {
        let shared = &self.0;
        let tag = shared.next_tag.fetch_add(1, Ordering::Relaxed);
        let internal = |e: berth_model::Error| Denied::Refused(Refusal::Internal, e.message().to_owned());
        let bytes = protocol::encode(&request(tag)).map_err(internal)?;
        let (sender, receiver) = oneshot::channel();
        shared.waiting().insert(tag, sender);
        // After this check the reader's end drops the sender, before it the table is looked at in vain.
        let sent = !shared.ended.is_cancelled() && shared.channel.send(&bytes, &[]).await.is_ok();
        if !sent {
            shared.waiting().remove(&tag);
            return Err(Denied::Gone);
        }
        receiver.await.map_err(|_| Denied::Gone)
    }
}

fn denied(reply: Reply) -> Denied {
    match reply {
        Reply::Refused { refusal, message, .. } => Denied::Refused(refusal, message),
        other => Denied::Refused(Refusal::Internal, format!("the daemon answered with {other:?}")),
    }
}

impl Shared {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn read(self: Arc<Self>) {
        let mut buffer = vec![0; MAX_MESSAGE];
        loop {
            let (length, fds) = match self.channel.recv(&mut buffer).await {
                Ok((0, _)) => break,
                Ok(received) => received,
                Err(e) => {
                    tracing::warn!("socket to the daemon: {e}");
                    break;
                }
            };
            let reply = match protocol::decode::<Reply>(&buffer[..length]) {
                Ok(reply) => reply,
                Err(e) => {
                    tracing::error!("{e}");
                    break;
                }
            };
            let (Reply::Granted { tag, .. } | Reply::Started { tag, .. } | Reply::Refused { tag, .. }) = reply;
            let waiting = self.waiting().remove(&tag);
            if let Some(sender) = waiting {
                // Nobody stops waiting: see the callers of `take` and `start`.
                let _ = sender.send((reply, fds));
            }
        }
        self.ended.cancel();
        self.waiting().clear();
    }
}
