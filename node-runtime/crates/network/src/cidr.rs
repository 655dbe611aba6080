//! The pod CIDR of a node, as the kubelet tells it (UpdateRuntimeConfig): one subnet, or one of each family with a comma between
//! them. Pure. Must not: decide what becomes of it.
use berth_model::{Error, Result};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// Most subnets in a pod CIDR: one of each family.
const CIDRS_MAX: usize = 2;
const FIELD: &str = "runtime_config.network_config.pod_cidr";

/// The subnets of a pod CIDR. Errors: `InvalidArgument` naming the field of UpdateRuntimeConfig.
pub fn pod_cidr(text: &str) -> Result<(Option<Ipv4Net>, Option<Ipv6Net>)> {
    let (mut four, mut six) = (None, None);
    let parts: Vec<&str> = text.split(',').map(str::trim).collect();
    if parts.len() > CIDRS_MAX {
        return Err(Error::invalid(FIELD, format!("has {} subnets, the limit is {CIDRS_MAX}", parts.len())));
    }
    for part in parts {
        let net: IpNet = part.parse().map_err(|_| Error::invalid(FIELD, format!("{part:?} is not a subnet")))?;
        let twice = match net.trunc() {
            IpNet::V4(net) => four.replace(net).is_some(),
            IpNet::V6(net) => six.replace(net).is_some(),
        };
        if twice {
            return Err(Error::invalid(FIELD, format!("{text:?} has two subnets of one family")));
        }
    }
    Ok((four, six))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_subnet_of_each_family() {
        let text = |(four, six): (Option<Ipv4Net>, Option<Ipv6Net>)| {
            (four.map(|n| n.to_string()).unwrap_or_default(), six.map(|n| n.to_string()).unwrap_or_default())
        };
        let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
        assert_eq!(text(pod_cidr("10.244.1.0/24").unwrap()), pair("10.244.1.0/24", ""));
        assert_eq!(text(pod_cidr("10.244.1.0/24,fd00:1::/64").unwrap()), pair("10.244.1.0/24", "fd00:1::/64"));
        assert_eq!(text(pod_cidr("fd00:1::/64, 10.244.1.0/24").unwrap()), pair("10.244.1.0/24", "fd00:1::/64"));
        for bad in ["", "10.244.1.0", "10.244.1.0/24,10.244.2.0/24", "10.0.0.0/8,fd00::/8,fd01::/8", "x/24"] {
            assert!(pod_cidr(bad).unwrap_err().message().contains("pod_cidr"), "{bad}");
        }
    }
}
