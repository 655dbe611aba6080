//! Which pod or container a person means. Pure. Exact names come before ids, pods before containers; what names several is an
//! error that lists them.
use super::listing::{ContainerView, PodView};
use anyhow::{Result, bail};

/// The known word that is most like a mistyped one, if one is near enough.
pub fn nearest<'k>(word: &str, known: impl IntoIterator<Item = &'k str>) -> Option<&'k str> {
    let lower = word.to_lowercase();
    let limit = 1 + word.chars().count() / 4;
    let near = known.into_iter().map(|k| (strsim::damerau_levenshtein(&lower, &k.to_lowercase()), k));
    near.filter(|(distance, _)| *distance <= limit).min_by_key(|(distance, _)| *distance).map(|(_, k)| k)
}

/// Fewer digits are never an id.
const MIN_PREFIX: usize = 3;

/// What was meant.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Target<'a> {
    /// A pod.
    Pod(&'a PodView),
    /// A container, and its pod.
    Container(&'a PodView, &'a ContainerView),
}

/// Finds it: `name`, `namespace/name` or id prefix of a pod; `name`, `pod/name` or id prefix of a container.
pub fn find<'a>(pods: &'a [PodView], name: &str) -> Result<Target<'a>> {
    match find_any(pods, name)? {
        Some(target) => Ok(target),
        None => {
            let names = pods
                .iter()
                .flat_map(|p| std::iter::once(p.name.as_str()).chain(p.containers.iter().map(|c| c.name.as_str())));
            match nearest(name, names) {
                Some(near) => bail!("no pod or container is called {name:?}; did you mean {near:?}?"),
                None => bail!("no pod or container is called {name:?}; `berth ps -a` and `berth pods -a` show all"),
            }
        }
    }
}

/// As [`find`], without an error where nothing is called so.
pub fn find_any<'a>(pods: &'a [PodView], name: &str) -> Result<Option<Target<'a>>> {
    let named: Vec<_> = current(pods.iter().filter(|p| p.name == name || p.full_name() == name).collect());
    if let Some(target) = only(named.into_iter().map(Target::Pod).collect(), name)? {
        return Ok(Some(target));
    }
    let containers = || pods.iter().flat_map(|p| current_containers(p).into_iter().map(move |c| (p, c)));
    let named = containers().filter(|(_, c)| c.name == name).map(|(p, c)| Target::Container(p, c));
    if let Some(target) = only(named.collect(), name)? {
        return Ok(Some(target));
    }
    if let Some((pod, inside)) = name.rsplit_once('/') {
        let of_pod = pods.iter().filter(|p| p.name == pod || p.full_name() == pod || is_prefix(&p.id, pod));
        let of_pod = current(of_pod.collect());
        let named = of_pod.into_iter().flat_map(|p| current_containers(p).into_iter().map(move |c| (p, c)));
        let named = named.filter(|(_, c)| c.name == inside).map(|(p, c)| Target::Container(p, c));
        return only(named.collect(), name);
    }
    if name.len() < MIN_PREFIX {
        return Ok(None);
    }
    let by_id = pods.iter().filter(|p| p.id.starts_with(name)).map(Target::Pod);
    let all = pods.iter().flat_map(|p| p.containers.iter().map(move |c| (p, c)));
    let inside = all.filter(|(_, c)| c.id.starts_with(name)).map(|(p, c)| Target::Container(p, c));
    only(by_id.chain(inside).collect(), name)
}

fn is_prefix(id: &str, text: &str) -> bool {
    text.len() >= MIN_PREFIX && id.starts_with(text)
}

/// The container to look at: the one that is named, or the only one of the pod, or the one that `-c` names.
pub fn container<'a>(
    pods: &'a [PodView],
    name: &str,
    wanted: Option<&str>,
) -> Result<(&'a PodView, &'a ContainerView)> {
    let pod = match find(pods, name)? {
        Target::Container(pod, container) => {
            if wanted.is_some_and(|w| w != container.name) {
                bail!("{name:?} is the container {} itself; -c is for pods", container.name);
            }
            return Ok((pod, container));
        }
        Target::Pod(pod) => pod,
    };
    let inside = current_containers(pod);
    let names = || inside.iter().map(|c| c.name.as_str()).collect::<Vec<_>>().join(", ");
    match (wanted, inside.as_slice()) {
        (Some(wanted), all) => match all.iter().find(|c| c.name == wanted) {
            Some(found) => Ok((pod, found)),
            None => bail!("pod {} has no container {wanted:?}; it has {}", pod.full_name(), names()),
        },
        (None, []) => bail!("pod {} has no container", pod.full_name()),
        (None, [only]) => Ok((pod, only)),
        (None, _) => bail!("pod {} has several containers; choose one with -c: {}", pod.full_name(), names()),
    }
}

/// Of sandboxes of one and the same pod, the one that is ready, else the newest.
fn current(mut pods: Vec<&PodView>) -> Vec<&PodView> {
    pods.sort_by_key(|p| (p.state == "Ready", p.created_nanos));
    let mut kept: Vec<&PodView> = Vec::new();
    for pod in pods.into_iter().rev() {
        if !kept.iter().any(|k| (&k.namespace, &k.name) == (&pod.namespace, &pod.name)) {
            kept.push(pod);
        }
    }
    kept
}

/// Of a pod's attempts at one container, the newest.
pub fn current_containers(pod: &PodView) -> Vec<&ContainerView> {
    let newest = |c: &&ContainerView| !pod.containers.iter().any(|o| o.name == c.name && o.attempt > c.attempt);
    pod.containers.iter().filter(newest).collect()
}

fn only<'a>(mut targets: Vec<Target<'a>>, name: &str) -> Result<Option<Target<'a>>> {
    if targets.len() > 1 {
        let lines: Vec<_> = targets.iter().map(describe).collect();
        bail!("{name:?} is ambiguous; say which one by its id:\n  {}", lines.join("\n  "));
    }
    Ok(targets.pop())
}

fn describe(target: &Target<'_>) -> String {
    match target {
        Target::Pod(p) => format!("pod {} {} ({})", p.full_name(), p.id, p.state),
        Target::Container(p, c) => format!("container {} of {} {} ({})", c.name, p.full_name(), c.id, c.state),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(namespace: &str, name: &str, id: &str, containers: &[(&str, &str, u32)]) -> PodView {
        let container = |(name, id, attempt): &(&str, &str, u32)| ContainerView {
            name: (*name).into(),
            id: (*id).into(),
            attempt: *attempt,
            ..ContainerView::default()
        };
        PodView {
            namespace: namespace.into(),
            name: name.into(),
            id: id.into(),
            state: "Ready".into(),
            containers: containers.iter().map(container).collect(),
            ..PodView::default()
        }
    }

    fn pods() -> Vec<PodView> {
        let mut old = pod("default", "web", "aaa000", &[]);
        old.state = "NotReady".into();
        old.created_nanos = 9;
        vec![
            old,
            pod("default", "web", "aaa111", &[("web", "c1c1", 0), ("web", "c2c2", 1)]),
            pod("default", "db", "bbb111", &[("main", "d1d1", 0), ("side", "d2d2", 0)]),
            pod("other", "db", "bbb222", &[("main", "e1e1", 0)]),
        ]
    }

    fn id<'a>(target: &Target<'a>) -> &'a str {
        match target {
            Target::Pod(p) => &p.id,
            Target::Container(_, c) => &c.id,
        }
    }

    #[test]
    fn names_and_prefixes_are_found() {
        let pods = pods();
        let table = [
            ("web", "aaa111"),
            ("default/db", "bbb111"),
            ("other/db", "bbb222"),
            ("side", "d2d2"),
            ("web/web", "c2c2"),
            ("other/db/main", "e1e1"),
            ("bbb111/main", "d1d1"),
            ("c1c", "c1c1"),
            ("aaa0", "aaa000"),
        ];
        for (name, wanted) in table {
            assert_eq!(id(&find(&pods, name).unwrap()), wanted, "{name}");
        }
    }

    #[test]
    fn several_are_listed_and_none_is_told() {
        let pods = pods();
        let error = find(&pods, "db").unwrap_err().to_string();
        assert!(error.contains("pod default/db bbb111 (Ready)") && error.contains("other/db"), "{error}");
        assert!(find(&pods, "main").unwrap_err().to_string().contains("container main of other/db e1e1"));
        assert!(find(&pods, "bbb").unwrap_err().to_string().contains("ambiguous"));
        assert!(find(&pods, "c1").unwrap_err().to_string().contains("no pod or container"), "two digits are no id");
        assert!(find_any(&pods, "registry.example/image:1").unwrap().is_none());
    }

    #[test]
    fn mistyped_names_are_guessed() {
        let error = find(&pods(), "wbe").unwrap_err().to_string();
        assert!(error.ends_with("did you mean \"web\"?"), "{error}");
        assert_eq!(nearest("Nmes", ["ID", "Names"]), Some("Names"));
        assert_eq!(nearest("zzzz", ["ID", "Names"]), None);
    }

    #[test]
    fn a_pods_container_is_the_only_one_or_the_named_one() {
        let pods = pods();
        let found = |name: &str, wanted| container(&pods, name, wanted).map(|(_, c)| c.id.as_str());
        assert_eq!(found("web", None).unwrap(), "c2c2", "the newest attempt");
        assert_eq!(found("default/db", Some("side")).unwrap(), "d2d2");
        assert_eq!(found("d1d1", Some("main")).unwrap(), "d1d1");
        assert!(found("default/db", None).unwrap_err().to_string().ends_with("-c: main, side"));
        assert!(found("default/db", Some("x")).unwrap_err().to_string().ends_with("it has main, side"));
        assert!(found("d1d1", Some("side")).is_err());
    }
}
