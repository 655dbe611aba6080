//! Netlink: the codec, a blocking socket, and the rtnetlink requests that the bridge network needs.
//!
//! Why not an async client: the kernel answers an rtnetlink or nfnetlink request inside `sendmsg`, so there is nothing to
//! wait for, several requests fit in one datagram, and nftables needs the codec anyway.
//! Must not: know pods or policy.

pub(crate) mod codec;
pub(crate) mod error;
pub(crate) mod route;
pub(crate) mod socket;
pub(crate) mod traffic;

pub(crate) use codec::{Attributes, Message};
pub(crate) use error::NetlinkError;
pub(crate) use route::{LinkInfo, RouteSocket};
pub(crate) use socket::{Request, Socket};
