//! Values out of the daemon's JSON, and out of /proc.
use crate::Result;
use serde_json::Value;
use std::fs;
use std::net::IpAddr;

/// A pod and its first container in the list of `berth pods`.
pub fn listed(list: &Value, pod: &str) -> Result<(String, String)> {
    let entry = list.as_array().into_iter().flatten().find(|p| p["name"] == pod);
    let entry = entry.ok_or_else(|| format!("berth pods: no pod {pod} in {list}"))?;
    let ids = (entry["id"].as_str(), entry["containers"][0]["id"].as_str());
    let (Some(pod), Some(container)) = ids else { return Err(format!("berth pods: ids are missing in {entry}")) };
    Ok((pod.to_owned(), container.to_owned()))
}

/// Ids of the pods in the list of `berth pods`.
pub fn pod_ids(list: &Value) -> Vec<String> {
    list.as_array().into_iter().flatten().filter_map(|p| p["id"].as_str()).map(str::to_owned).collect()
}

/// A container that runs, as `berth inspect` tells it.
#[derive(Debug)]
pub struct Running {
    /// Process id of its first process.
    pub pid: u32,
    /// Name and microseconds of each phase of its creation and start.
    pub phases: Vec<(String, u64)>,
}

/// Reads a container's document.
pub fn container(document: &Value) -> Result<Running> {
    let pid = at(document, "/container/life/Running/pid")?.as_u64().and_then(|p| u32::try_from(p).ok());
    Ok(Running {
        pid: pid.ok_or("berth inspect: pid is not a number")?,
        phases: phases(at(document, "/container/phases")?),
    })
}

/// A pod, as `berth inspect` tells it.
#[derive(Debug)]
pub struct Pod {
    /// Its address.
    pub address: IpAddr,
    /// Process id of its monitor.
    pub monitor: u32,
    /// As of [`Running`].
    pub phases: Vec<(String, u64)>,
}

/// Reads a pod's document.
pub fn pod(document: &Value) -> Result<Pod> {
    let address = text(document, "/pod/network/addresses/0")?;
    let monitor = at(document, "/pod/monitor/pid")?.as_u64().and_then(|p| u32::try_from(p).ok());
    Ok(Pod {
        // With the length of its prefix.
        address: address.split('/').next().unwrap_or_default().parse().map_err(|e| format!("{address:?}: {e}"))?,
        monitor: monitor.ok_or("berth inspect: the monitor's pid is not a number")?,
        phases: phases(at(document, "/pod/phases")?),
    })
}

fn at<'a>(document: &'a Value, pointer: &str) -> Result<&'a Value> {
    document.pointer(pointer).ok_or_else(|| format!("berth inspect: nothing at {pointer} in {document}"))
}

fn text(document: &Value, pointer: &str) -> Result<String> {
    at(document, pointer)?.as_str().map(str::to_owned).ok_or_else(|| format!("berth inspect: {pointer} is not a text"))
}

fn phases(list: &Value) -> Vec<(String, u64)> {
    let phase = |v: &Value| Some((v["name"].as_str()?.to_owned(), v["micros"].as_u64()?));
    list.as_array().into_iter().flatten().filter_map(phase).collect()
}

/// Memory of a process in KiB, shared pages counted by their share (PSS).
pub fn pss_kib(pid: u32) -> Result<u64> {
    let path = format!("/proc/{pid}/smaps_rollup");
    let text = fs::read_to_string(&path).map_err(|e| format!("{path}: {e}"))?;
    let line = text.lines().find_map(|l| l.strip_prefix("Pss:"));
    let number = line.and_then(|l| l.split_whitespace().next()).and_then(|n| n.parse().ok());
    number.ok_or_else(|| format!("{path}: has no Pss"))
}

/// Name of a process' program, as the kernel has it.
pub fn comm(pid: u32) -> Result<String> {
    let path = format!("/proc/{pid}/comm");
    fs::read_to_string(&path).map(|t| t.trim().to_owned()).map_err(|e| format!("{path}: {e}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn documents_are_read_and_what_is_missing_is_named() {
        let document = json!({
            "container": {"life": {"Running": {"pid": 7}}, "phases": [{"name": "start/init", "micros": 12}]},
        });
        let running = container(&document).unwrap();
        assert_eq!(running.pid, 7);
        assert_eq!(running.phases, [("start/init".to_owned(), 12)]);
        assert!(
            container(&json!({"container": {"life": "Created"}})).unwrap_err().contains("/container/life/Running/pid")
        );
        let document = json!({"pod": {"network": {"addresses": ["10.1.2.3/24"]}, "monitor": {"pid": 9}, "phases": []}});
        assert_eq!(pod(&document).unwrap().address, IpAddr::from([10, 1, 2, 3]));
    }

    #[test]
    fn lists_give_ids() {
        let list = json!([{"name": "db", "id": "p0", "containers": []}, {"name": "web", "id": "p1", "containers": [{"id": "c1"}]}]);
        assert_eq!(listed(&list, "web").unwrap(), ("p1".into(), "c1".into()));
        assert!(listed(&list, "db").unwrap_err().contains("ids are missing"));
        assert!(listed(&list, "x").unwrap_err().contains("no pod x"));
        assert_eq!(pod_ids(&list), ["p0", "p1"]);
    }

    #[test]
    fn this_process_has_memory_and_a_name() {
        assert!(pss_kib(std::process::id()).unwrap() > 100);
        assert!(!comm(std::process::id()).unwrap().is_empty());
        assert!(pss_kib(u32::MAX).is_err());
    }
}
