//! The hardware address that a pod asks for, by an annotation.
//!
//! Owns: its form. Pure. Must not: decide whether the pod may have it; the network does.
use berth_model::{Error, Labels, Result};
use serde::{Deserialize, Serialize};
use std::fmt;

/// The annotation. With CNI it counts where the configuration declares the capability `mac`.
const ANNOTATION: &str = "cni.berth.dev/mac";

/// A hardware address (EUI-48).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Mac([u8; 6]);

impl Mac {
    /// What a pod's annotations ask for. Errors: `InvalidArgument` naming the annotation.
    pub fn from_annotations(annotations: &Labels) -> Result<Option<Self>> {
        annotations.get(ANNOTATION).map(|text| Self::parse(text).ok_or_else(|| refused(text, ""))).transpose()
    }

    /// The same for a bridge that many pods share: one end of one link, made by hand (IEEE 802, U/L and I/G bits), and none of those
    /// that begin with `own`, which the network gives out by itself. Errors: `InvalidArgument` naming the annotation.
    pub fn for_bridge(annotations: &Labels, own: [u8; 2]) -> Result<Option<Self>> {
        let Some(mac) = Self::from_annotations(annotations)? else { return Ok(None) };
        if mac.0[0] & 0b11 != 0b10 {
            return Err(refused(&mac.to_string(), ": a pod's is a locally administered address of one interface"));
        }
        if mac.0[..2] == own {
            return Err(refused(&mac.to_string(), ": those that begin so are the network's own"));
        }
        Ok(Some(mac))
    }

    /// As the kernel takes it.
    pub fn bytes(self) -> [u8; 6] {
        self.0
    }

    /// That another pod has it. `pod` is that pod, for people.
    pub fn taken(self, pod: &str) -> Error {
        Error::new(berth_model::ErrorKind::AlreadyExists, format!("annotations[{ANNOTATION:?}]: pod {pod} has {self}"))
    }

    fn parse(text: &str) -> Option<Self> {
        let mut bytes = [0; 6];
        let mut parts = text.split(':');
        for byte in &mut bytes {
            let part = parts.next().filter(|p| p.len() == 2 && p.bytes().all(|c| c.is_ascii_hexdigit()))?;
            *byte = u8::from_str_radix(part, 16).ok()?;
        }
        parts.next().is_none().then_some(Self(bytes))
    }
}

fn refused(text: &str, why: &str) -> Error {
    let shown: String = text.chars().take(32).collect();
    Error::invalid(format!("annotations[{ANNOTATION:?}]"), format!("{shown:?} is not like 02:00:00:00:00:01{why}"))
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl From<Mac> for String {
    fn from(mac: Mac) -> Self {
        mac.to_string()
    }
}

impl TryFrom<String> for Mac {
    type Error = String;

    fn try_from(text: String) -> std::result::Result<Self, String> {
        Self::parse(&text).ok_or_else(|| format!("{text:?} is no hardware address"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(text: &str) -> Result<Option<Mac>> {
        Mac::for_bridge(&[(ANNOTATION.to_owned(), text.to_owned())].into(), [0x02, 0xbe])
    }

    #[test]
    fn a_pod_may_have_what_nobody_else_could() {
        assert_eq!(asked("0A:00:00:00:00:0f").unwrap().unwrap().to_string(), "0a:00:00:00:00:0f");
        assert_eq!(Mac::for_bridge(&Labels::new(), [2, 0xbe]).unwrap(), None);
        for text in ["", "02:00", "02:00:00:00:00:00:00", "02:00:00:00:00:0g", "0200:00:00:00:00", "+2:00:00:00:00:00"]
        {
            assert!(asked(text).unwrap_err().message().contains("is not like 02:00:00:00:00:01"), "{text}");
        }
        for (text, why) in [
            ("00:11:22:33:44:55", "locally administered"),
            ("03:00:00:00:00:01", "of one interface"),
            ("ff:ff:ff:ff:ff:ff", "of one interface"),
            ("02:be:0a:40:00:02", "the network's own"),
        ] {
            let error = asked(text).unwrap_err();
            assert!(
                error.message().starts_with("annotations[\"cni.berth.dev/mac\"]") && error.message().contains(why),
                "{error}"
            );
        }
    }

    #[test]
    fn it_is_kept_as_people_write_it() {
        let mac = asked("0a:00:00:00:00:0f").unwrap().unwrap();
        let text = serde_json::to_string(&mac).unwrap();
        assert_eq!((text.as_str(), serde_json::from_str::<Mac>(&text).unwrap()), ("\"0a:00:00:00:00:0f\"", mac));
        assert!(serde_json::from_str::<Mac>("\"0a\"").is_err());
    }
}
