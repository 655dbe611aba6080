//! Traffic control: how many bits a second pass an interface.
//!
//! Numbers: linux/rtnetlink.h, linux/pkt_sched.h, linux/pkt_cls.h, linux/tc_act/tc_mirred.h. Must not: decide anything.
use super::codec::Message;
use super::socket::{F_CREATE, F_EXCL, F_REPLACE, Request};

const RTM_NEWQDISC: u16 = 36;
const RTM_NEWTFILTER: u16 = 44;
const TCA_KIND: u16 = 1;
const TCA_OPTIONS: u16 = 2;
const TCA_TBF_PARMS: u16 = 1;
const TCA_TBF_RATE64: u16 = 4;
const TCA_TBF_BURST: u16 = 6;
const TCA_U32_SEL: u16 = 5;
const TCA_U32_ACT: u16 = 7;
const TCA_ACT_KIND: u16 = 1;
const TCA_ACT_OPTIONS: u16 = 2;
const TCA_MIRRED_PARMS: u16 = 2;
/// `TC_H_ROOT`.
const ROOT: u32 = 0xffff_ffff;
/// `TC_H_INGRESS`.
const INGRESS: u32 = 0xffff_fff1;
/// Handles of our queue (`1:`) and of the one on the way in (`ffff:`).
const QUEUE: u32 = 0x0001_0000;
const WAY_IN: u32 = 0xffff_0000;
/// `TC_LINKLAYER_ETHERNET`.
const ETHERNET: u8 = 1;
/// `ETH_P_ALL`, in network byte order as `tcm_info` has it.
const EVERY_PROTOCOL: u16 = 0x0003_u16.to_be();
/// `TC_U32_TERMINAL`.
const TERMINAL: u8 = 1;
/// `TCA_EGRESS_REDIR` and `TC_ACT_STOLEN`.
const REDIRECT: u32 = 1;
const STOLEN: u32 = 4;
/// How long a packet may wait in a full queue, in microseconds: what the CNI bandwidth plugin has.
const LATENCY: u64 = 25_000;
/// Smallest burst in bytes: a whole packet of the largest MTU.
const BURST_MIN: u64 = 128 * 1024;
/// Part of a second that the burst is of the rate.
const BURST_PART: u64 = 50;

/// Limits what leaves by an interface to `bits` a second (`tbf`, tc-tbf(8)); replaces a limit that is there.
pub(crate) fn limit(index: u32, name: &str, bits: u64) -> Request {
    let rate = (bits / 8).max(1);
    let burst = (rate / BURST_PART).clamp(BURST_MIN, u64::from(u32::MAX / 2));
    let queue = (u128::from(rate) * u128::from(LATENCY) / 1_000_000 + u128::from(burst)).min(u128::from(u32::MAX));
    let mut m = Message::new(RTM_NEWQDISC, F_CREATE | F_REPLACE, &header(index, QUEUE, ROOT, 0));
    m.string(TCA_KIND, "tbf");
    m.nest(TCA_OPTIONS, |m| {
        m.bytes(TCA_TBF_PARMS, &tbf(rate, u32::try_from(queue).unwrap_or(u32::MAX)));
        if u32::try_from(rate).is_err() {
            m.bytes(TCA_TBF_RATE64, &rate.to_ne_bytes());
        }
        m.u32(TCA_TBF_BURST, u32::try_from(burst).unwrap_or(u32::MAX));
    });
    Request::new(format!("limit the bandwidth of interface {name:?}"), m)
}

/// Sends everything that comes in by an interface through another one first.
pub(crate) fn redirect(index: u32, name: &str, to: u32) -> [Request; 2] {
    let mut queue = Message::new(RTM_NEWQDISC, F_CREATE | F_EXCL, &header(index, WAY_IN, INGRESS, 0));
    queue.string(TCA_KIND, "ingress");
    // Priority 1, which u32 filters need in the upper half.
    let info = 1 << 16 | u32::from(EVERY_PROTOCOL);
    let mut filter = Message::new(RTM_NEWTFILTER, F_CREATE | F_EXCL, &header(index, 0, WAY_IN, info));
    filter.string(TCA_KIND, "u32");
    filter.nest(TCA_OPTIONS, |m| {
        m.bytes(TCA_U32_SEL, &every_packet());
        m.nest(TCA_U32_ACT, |m| {
            m.nest(1, |m| {
                m.string(TCA_ACT_KIND, "mirred");
                m.nest(TCA_ACT_OPTIONS, |m| m.bytes(TCA_MIRRED_PARMS, &mirred(to)));
            });
        });
    });
    let what = format!("redirect what comes in by interface {name:?}");
    [Request::new(what.clone(), queue), Request::new(what, filter)]
}

/// `struct tcmsg`.
fn header(index: u32, handle: u32, parent: u32, info: u32) -> [u8; 20] {
    let mut h = [0; 20];
    h[4..8].copy_from_slice(&index.to_ne_bytes());
    h[8..12].copy_from_slice(&handle.to_ne_bytes());
    h[12..16].copy_from_slice(&parent.to_ne_bytes());
    h[16..20].copy_from_slice(&info.to_ne_bytes());
    h
}

/// `struct tc_tbf_qopt`: two `struct tc_ratespec`, then limit, buffer and mtu. The buffer is in `TCA_TBF_BURST`, in bytes.
fn tbf(rate: u64, limit: u32) -> [u8; 36] {
    let mut q = [0; 36];
    q[1] = ETHERNET;
    q[8..12].copy_from_slice(&u32::try_from(rate).unwrap_or(u32::MAX).to_ne_bytes());
    q[24..28].copy_from_slice(&limit.to_ne_bytes());
    q
}

/// `struct tc_u32_sel` with one `struct tc_u32_key` that matches everything.
fn every_packet() -> [u8; 32] {
    let mut sel = [0; 32];
    (sel[0], sel[2]) = (TERMINAL, 1);
    sel
}

/// `struct tc_mirred`: index, capab, action, refcnt, bindcnt, eaction, ifindex.
fn mirred(to: u32) -> [u8; 28] {
    let mut m = [0; 28];
    m[8..12].copy_from_slice(&STOLEN.to_ne_bytes());
    m[20..24].copy_from_slice(&REDIRECT.to_ne_bytes());
    m[24..28].copy_from_slice(&to.to_ne_bytes());
    m
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::Attributes;
    use crate::netlink::codec::{Messages, read_u32};

    fn options(request: Request) -> (String, Vec<(u16, Vec<u8>)>) {
        let bytes = request.message.finish(1);
        let attributes = Attributes(&Messages(&bytes).next().unwrap().payload[20..]);
        let kind = attributes.find_string(TCA_KIND).unwrap();
        let options = attributes.find_nested(TCA_OPTIONS);
        (kind, options.into_iter().flatten().map(|(k, v)| (k, v.to_vec())).collect())
    }

    #[test]
    fn a_limit_is_in_bytes_with_a_burst_and_a_queue() {
        // `tc qdisc add dev x root tbf rate 80mbit burst 200000 latency 25ms` has the same numbers.
        let (kind, o) = options(limit(3, "x", 80_000_000));
        assert_eq!(kind, "tbf");
        assert_eq!(read_u32(&o[0].1, 8), Some(10_000_000));
        assert_eq!(read_u32(&o[0].1, 24), Some(250_000 + 200_000));
        assert_eq!((o[1].0, read_u32(&o[1].1, 0)), (TCA_TBF_BURST, Some(200_000)));
        let (_, o) = options(limit(3, "x", 1_000_000_000_000_000));
        assert_eq!((o[1].0, o[1].1.len()), (TCA_TBF_RATE64, 8), "a rate beyond 32 bits has its own attribute");
        let (_, o) = options(limit(3, "x", 1000));
        assert_eq!(read_u32(&o[1].1, 0), Some(131_072), "a whole packet always fits");
    }

    #[test]
    fn a_redirection_is_a_queue_and_a_filter() {
        let [queue, filter] = redirect(3, "x", 9);
        assert_eq!(options(queue).0, "ingress");
        let (kind, o) = options(filter);
        assert_eq!((kind.as_str(), o[0].0, o[1].0), ("u32", TCA_U32_SEL, TCA_U32_ACT));
        let action = Attributes(&o[1].1).find_nested(1).unwrap();
        assert_eq!(action.find_string(TCA_ACT_KIND).unwrap(), "mirred");
        let parameters = action.find_nested(TCA_ACT_OPTIONS).unwrap().find(TCA_MIRRED_PARMS).unwrap();
        assert_eq!(read_u32(parameters, 24), Some(9));
    }
}
