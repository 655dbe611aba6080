//! The bandwidth of a pod, as its annotations ask for it.
//!
//! The annotations and their limits are those of the CNI bandwidth plugin and of Kubernetes (`pkg/util/bandwidth`): bits a
//! second as a quantity, from 1k to 1P. Pure. Must not: apply anything.
use berth_model::{Error, Labels, Quantity, Result};

/// What the pod gets.
const INGRESS: &str = "kubernetes.io/ingress-bandwidth";
/// What the pod sends.
const EGRESS: &str = "kubernetes.io/egress-bandwidth";
/// Limits in bits a second.
const RANGE: std::ops::RangeInclusive<u64> = 1_000..=1_000_000_000_000_000;

/// Most bits a second; `None` is no limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Bandwidth {
    /// To the pod.
    pub ingress: Option<u64>,
    /// From the pod.
    pub egress: Option<u64>,
}

impl Bandwidth {
    /// Reads a pod's annotations. Errors: `InvalidArgument` naming the annotation.
    pub fn from_annotations(annotations: &Labels) -> Result<Self> {
        let read = |name: &str| annotations.get(name).map(|text| bits(name, text)).transpose();
        Ok(Self { ingress: read(INGRESS)?, egress: read(EGRESS)? })
    }
}

fn bits(name: &str, text: &str) -> Result<u64> {
    let refuse = |problem: String| Error::invalid(format!("annotations[{name:?}]"), problem);
    let value = Quantity::parse(text).and_then(Quantity::value).map_err(|e| refuse(format!("{text:?} {e}")))?;
    let value = u64::try_from(value).unwrap_or_default();
    if !RANGE.contains(&value) {
        return Err(refuse(format!("{text:?} is not within 1k to 1P bits a second, such as 10M")));
    }
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(name: &str, text: &str) -> Result<Bandwidth> {
        Bandwidth::from_annotations(&[(name.to_owned(), text.to_owned())].into())
    }

    #[test]
    fn quantities_are_bits_a_second() {
        assert_eq!(read(INGRESS, "10M").unwrap(), Bandwidth { ingress: Some(10_000_000), egress: None });
        assert_eq!(read(EGRESS, "1Gi").unwrap(), Bandwidth { ingress: None, egress: Some(1 << 30) });
        assert_eq!(Bandwidth::from_annotations(&Labels::new()).unwrap(), Bandwidth::default());
        assert_eq!(read(EGRESS, "1e3").unwrap().egress, Some(1000));
    }

    #[test]
    fn a_bad_one_names_its_annotation() {
        for text in ["", "fast", "10MB", "-1M", "999", "2P", "1e40", "0", "10 M"] {
            let e = read(EGRESS, text).unwrap_err();
            assert_eq!(e.kind(), berth_model::ErrorKind::InvalidArgument);
            assert!(e.message().contains(EGRESS), "{text}: {e}");
        }
    }
}
