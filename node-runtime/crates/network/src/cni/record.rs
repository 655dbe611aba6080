//! What is durable of an attachment: everything that DEL needs, written before ADD begins and removed when DEL has succeeded.
//! Format: docs/formats/cni-attachment.md.
//! Must not: run plugins.
use super::beside;
use super::call::Target;
use super::config::{Form, NetworkConfig};
use berth_model::{Error, PodId, Result, ResultExt};
use berth_store::{Records, Sync, Unreadable};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::path::PathBuf;

/// Version of the format.
const VERSION: u32 = 1;
const KIND: &str = "cni-attachment";

/// How far an attachment has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Stage {
    /// ADD is under way, or was cut short.
    Adding,
    /// ADD succeeded.
    Attached,
    /// To be deleted, until DEL succeeds.
    Deleting,
}

/// The record.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Attachment {
    pub(super) stage: Stage,
    /// The file that the configuration came from; for people.
    pub(super) file: String,
    /// The configuration as it was at ADD, a list: DEL uses this one, whatever the file holds by then.
    pub(super) config: Value,
    pub(super) target: Target,
    /// The last plugin's result.
    #[serde(default)]
    pub(super) result: Option<Map<String, Value>>,
}

impl Attachment {
    /// The configuration. Errors: `Internal` when it is not one any more.
    pub(super) fn network(&self) -> Result<NetworkConfig> {
        let bytes = self.config.to_string().into_bytes();
        NetworkConfig::parse(&bytes, Form::List).map_err(|e| Error::internal(format!("recorded configuration: {e}")))
    }
}

/// Whether DEL will read the configuration from its record: it is longer there than in its file, and may be of several.
/// Errors: as those of [`NetworkConfig::parse`].
pub(super) fn check_recordable(config: &NetworkConfig) -> Result<()> {
    let value = config.to_value();
    NetworkConfig::parse(value.to_string().as_bytes(), Form::List)?;
    check_nesting(&value)
}

/// Refuses what could be recorded and then not be read again: readers have a limit of nesting, and a record and its envelope
/// are around what is recorded. Errors: `Internal`.
pub(super) fn check_nesting(recorded: &impl Serialize) -> Result<()> {
    let read = serde_json::to_string(&[[recorded]]).and_then(|text| serde_json::from_str::<Value>(&text));
    read.map(drop).map_err(|e| Error::internal(format!("cannot be recorded: {e}")))
}

/// The records of all attachments. All calls block.
pub(super) struct Store {
    records: Records<Attachment>,
    cidrs: PathBuf,
    written: PathBuf,
}

/// The attachments that can be read, and the records that cannot.
pub(super) type Loaded = (Vec<(PodId, Attachment)>, Vec<Unreadable>);

impl Store {
    /// In this directory.
    pub(super) fn open(directory: PathBuf) -> Result<Self> {
        let records = Records::open(directory.join("attachments"), KIND, VERSION)?;
        let (cidrs, written) = (directory.join("pod-cidrs.json"), beside::record(&directory));
        Ok(Self { records, cidrs, written })
    }

    /// The pod CIDRs that the kubelet told last; none when there is no such file, or it is torn.
    pub(super) fn read_cidrs(&self) -> Vec<IpNet> {
        std::fs::read(&self.cidrs).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default()
    }

    /// Keeps them. The kubelet tells them again after a reboot, so nothing is synced.
    pub(super) fn write_cidrs(&self, cidrs: &[IpNet]) -> Result<()> {
        let text = serde_json::to_vec(cidrs).map_err(|e| Error::internal(format!("pod CIDRs: {e}")))?;
        let new = self.cidrs.with_extension("new");
        std::fs::write(&new, text).and_then(|()| std::fs::rename(&new, &self.cidrs)).context(|| self.cidrs.display())
    }

    /// The file that says where a configuration was written (`written`).
    pub(super) fn written(&self) -> PathBuf {
        self.written.clone()
    }

    /// All of them, and those that cannot be read.
    pub(super) fn load(&self) -> Result<Loaded> {
        let loaded = self.records.load()?;
        let mut unreadable = loaded.unreadable;
        let mut good = Vec::new();
        for (id, record) in loaded.records {
            match PodId::parse(&id) {
                Ok(pod) => good.push((pod, record)),
                Err(e) => unreadable.push(Unreadable { id, problem: e.to_string() }),
            }
        }
        Ok((good, unreadable))
    }

    pub(super) fn read(&self, pod: &PodId) -> Result<Attachment> {
        self.records.read(pod.as_str())
    }

    pub(super) fn write(&self, pod: &PodId, record: &Attachment, sync: Sync) -> Result<()> {
        let written = self.records.write_synced(pod.as_str(), record, sync);
        written.context(|| format!("CNI attachment of pod {}", pod.short()))
    }

    pub(super) fn remove(&self, pod: &PodId) -> Result<()> {
        self.records.remove(pod.as_str()).context(|| format!("CNI attachment of pod {}", pod.short()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_could_not_be_read_from_a_record_is_not_recorded() {
        let nested = |depth: usize| {
            let inner = format!("{}{}", "[".repeat(depth), "]".repeat(depth));
            let text = format!(r#"{{"cniVersion": "1.0.0", "name": "n", "type": "x", "a": {inner}}}"#);
            NetworkConfig::parse(text.as_bytes(), Form::Single).unwrap()
        };
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path().to_owned()).unwrap();
        let pod = PodId::from_random([3; 32]);
        for depth in 1..126 {
            let config = nested(depth);
            let (stage, file, target) = (Stage::Adding, String::new(), Target::default());
            let record = Attachment { stage, file, config: config.to_value(), target, result: None };
            store.write(&pod, &record, Sync::Later).unwrap();
            let readable = store.read(&pod).is_ok_and(|record| record.network().is_ok());
            assert_eq!(check_recordable(&config).is_ok(), readable, "{depth}");
        }
        assert!(check_recordable(&nested(100)).is_ok() && check_recordable(&nested(125)).is_err());
    }

    #[test]
    fn a_record_has_all_that_del_needs() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path().to_owned()).unwrap();
        let text = r#"{"cniVersion": "0.4.0", "name": "n", "type": "x", "mtu": 9000}"#;
        let network = NetworkConfig::parse(text.as_bytes(), Form::Single).unwrap();
        let target = Target { container: "c".into(), netns: "/run/ns".into(), ..Target::default() };
        let record = Attachment {
            stage: Stage::Adding,
            file: "/etc/cni/net.d/a.conf".into(),
            config: network.to_value(),
            target,
            result: None,
        };
        let pod = PodId::from_random([3; 32]);
        store.write(&pod, &record, Sync::Now).unwrap();
        std::fs::create_dir(dir.path().join("attachments/torn")).unwrap();
        std::fs::write(dir.path().join("attachments/torn/record.json"), "{").unwrap();
        assert_eq!(store.read_cidrs(), []);
        let cidrs: Vec<IpNet> = vec!["10.1.0.0/24".parse().unwrap(), "fd00::/64".parse().unwrap()];
        store.write_cidrs(&cidrs).unwrap();
        assert_eq!(store.read_cidrs(), cidrs);
        let (good, unreadable) = store.load().unwrap();
        assert_eq!(good, [(pod.clone(), record)]);
        assert_eq!(unreadable.len(), 1);
        let again = good[0].1.network().unwrap();
        assert_eq!((again.plugins, again.version), (network.plugins, network.version));
        store.remove(&pod).unwrap();
        store.remove(&pod).unwrap();
    }
}
