//! Names of protocols and their meaning.
//!
//! Owns: which names are spoken and which one is chosen. Must not: read headers.
//! Sources: k8s.io/apimachinery/pkg/util/{remotecommand,portforward}/constants.go, k8s.io/streaming/pkg/httpstream/wsstream.

/// How exec and attach are spoken over SPDY.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum RemoteVersion {
    /// `channel.k8s.io`: our half of stdin's stream is closed at once.
    V1,
    /// `v2.channel.k8s.io`.
    V2,
    /// `v3.channel.k8s.io`: a stream for sizes of the terminal.
    V3,
    /// `v4.channel.k8s.io`: the outcome is a JSON status.
    V4,
}

/// Names for exec and attach over SPDY, the newest first.
pub const REMOTE_SPDY: &[(&str, RemoteVersion)] = &[
    ("v4.channel.k8s.io", RemoteVersion::V4),
    ("v3.channel.k8s.io", RemoteVersion::V3),
    ("v2.channel.k8s.io", RemoteVersion::V2),
    ("channel.k8s.io", RemoteVersion::V1),
];

/// How channels are spoken over WebSocket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Channels {
    /// The channel is a digit and the rest base64 text, else a byte and bytes.
    pub base64: bool,
    /// The outcome is a JSON status.
    pub status: bool,
    /// Channel 255 closes the one that the next byte names (v5).
    pub close: bool,
}

impl Channels {
    /// Of a client that names no protocol.
    pub const PLAIN: Self = Self { base64: false, status: false, close: false };
}

/// Names for exec and attach over WebSocket; the empty one is for clients that name none.
pub const REMOTE_SOCKET: &[(&str, Channels)] = &[
    ("v5.channel.k8s.io", Channels { base64: false, status: true, close: true }),
    ("v4.channel.k8s.io", Channels { base64: false, status: true, close: false }),
    ("v4.base64.channel.k8s.io", Channels { base64: true, status: true, close: false }),
    ("channel.k8s.io", Channels::PLAIN),
    ("base64.channel.k8s.io", Channels { base64: true, status: false, close: false }),
    ("", Channels::PLAIN),
];

/// Names for port-forward over SPDY.
pub const FORWARD_SPDY: &[(&str, ())] = &[("portforward.k8s.io", ())];

/// How port-forward is spoken over WebSocket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ForwardSocket {
    /// Two channels for each port.
    Channels {
        /// Text, see [`Channels::base64`].
        base64: bool,
    },
    /// The bytes of a SPDY connection.
    Tunnel,
}

/// Names for port-forward over WebSocket.
pub const FORWARD_SOCKET: &[(&str, ForwardSocket)] = &[
    ("SPDY/3.1+portforward.k8s.io", ForwardSocket::Tunnel),
    ("v4.channel.k8s.io", ForwardSocket::Channels { base64: false }),
    ("v4.base64.channel.k8s.io", ForwardSocket::Channels { base64: true }),
    ("portforward.k8s.io", ForwardSocket::Channels { base64: false }),
    ("", ForwardSocket::Channels { base64: false }),
];

/// The first of the client's names that we speak, in the client's order, and its meaning. A client that names none gets `default`
/// (`None` as name: it is not told back).
pub fn choose<'n, T: Copy>(
    names: impl IntoIterator<Item = &'n str>,
    spoken: &'static [(&'static str, T)],
    default: T,
) -> Option<(Option<&'static str>, T)> {
    let mut none = true;
    for name in names {
        none = false;
        if let Some((name, meaning)) = spoken.iter().find(|(spoken, _)| !name.is_empty() && *spoken == name) {
            return Some((Some(name), *meaning));
        }
    }
    none.then_some((None, default))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_client_s_order_decides() {
        let chosen = |names: &[&str]| choose(names.iter().copied(), REMOTE_SPDY, RemoteVersion::V1);
        assert_eq!(chosen(&["v9", "v3.channel.k8s.io", "v4.channel.k8s.io"]).unwrap().1, RemoteVersion::V3);
        assert_eq!(chosen(&[]), Some((None, RemoteVersion::V1)));
        assert_eq!(chosen(&["v9.channel.k8s.io"]), None);
        let socket = |names: &[&str]| choose(names.iter().copied(), REMOTE_SOCKET, Channels::PLAIN);
        assert_eq!(socket(&[""]), None, "the empty name stands for no header, not for an empty word");
        assert!(socket(&["v5.channel.k8s.io", "v4.channel.k8s.io"]).unwrap().1.close);
    }
}
