//! What the kernel said to a netlink request, as a sentence.
use berth_model::{Error, ErrorKind};
use nix::errno::Errno;

/// A request that the kernel refused, or an answer that did not come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NetlinkError {
    /// What was asked for, e.g. `create interface "veth1"`.
    pub(crate) what: String,
    /// The error number of the answer.
    pub(crate) errno: Errno,
    /// What the kernel added in words (`NLMSGERR_ATTR_MSG`).
    pub(crate) detail: Option<String>,
}

impl NetlinkError {
    /// A failure of the socket itself.
    pub(crate) fn io(what: &str, e: &std::io::Error) -> Self {
        Self { what: what.to_owned(), errno: Errno::from_raw(e.raw_os_error().unwrap_or(0)), detail: None }
    }

    /// An answer that breaks the protocol.
    pub(crate) fn protocol(what: &str, detail: &str) -> Self {
        Self { what: what.to_owned(), errno: Errno::EBADMSG, detail: Some(detail.to_owned()) }
    }

    /// Is it this error?
    pub(crate) fn is(&self, errno: Errno) -> bool {
        self.errno == errno
    }
}

impl From<NetlinkError> for Error {
    fn from(e: NetlinkError) -> Self {
        let (kind, remedy) = match e.errno {
            Errno::EPERM | Errno::EACCES => {
                (ErrorKind::FailedPrecondition, "; the daemon needs CAP_NET_ADMIN in the node's network namespace")
            }
            Errno::EOPNOTSUPP | Errno::EPROTONOSUPPORT | Errno::EAFNOSUPPORT => (
                ErrorKind::FailedPrecondition,
                "; the kernel lacks bridge, veth or nf_tables with NAT (module not loaded?)",
            ),
            Errno::ENOMEM | Errno::ENOBUFS | Errno::ENOSPC | Errno::EMFILE | Errno::ENFILE => {
                (ErrorKind::ResourceExhausted, "")
            }
            _ => (ErrorKind::Internal, ""),
        };
        let detail = e.detail.map(|d| format!(" ({d})")).unwrap_or_default();
        Error::new(kind, format!("{}: {}{detail}{remedy}", e.what, e.errno.desc()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sentence_names_request_reason_and_remedy() {
        let e = NetlinkError { what: "create bridge \"b0\"".into(), errno: Errno::EPERM, detail: Some("no".into()) };
        let e = Error::from(e);
        assert_eq!(e.kind(), ErrorKind::FailedPrecondition);
        assert_eq!(
            e.message(),
            "create bridge \"b0\": Operation not permitted (no); the daemon needs CAP_NET_ADMIN in the node's network namespace"
        );
    }
}
