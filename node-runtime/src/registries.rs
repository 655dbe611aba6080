//! From documents to a registry client's settings, for the daemon and for `berth login`: the files that documents name are read here.
//!
//! Must not: connect, or fail a daemon's start for a file that is missing. Pods that need no registry run without; each request to the
//! registry that the file is for fails, and says why.
use crate::layout::Layout;
use berth_registry::credentials::{Given, Keychain, Provider, go_duration};
use berth_registry::{
    ClientConfig, ClientIdentity, HostConfig, Mirror, MirrorCredentials, NoProxy, Proxy, ProxyConfig, Secret, Tls,
};
use berth_settings::{
    Capability, Fallback, RegistryHost, RegistryMirror, RegistryTls, Settings, credential_providers,
    parse_provider_config,
};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// Longest certificate, key or secret file.
const MAX_FILE: u64 = 1 << 20;
/// Most files of a directory of provider configurations.
const MAX_CONFIGS: usize = 100;

type Problem = String;

/// The file that `berth login` writes.
pub fn login_file(layout: &Layout) -> PathBuf {
    layout.etc.join("config.json")
}

/// Settings of a client, with the credentials that are handed over, and what of the documents cannot be had.
pub fn client_config(settings: &Settings, layout: &Layout, given: &Given) -> (ClientConfig, Vec<Problem>) {
    let mut problems = Vec::new();
    let mut config = ClientConfig::default();
    for registry in &settings.spec.registries {
        let host = host_config(registry).unwrap_or_else(|problem| {
            problems.push(format!("registry {}: {problem}", registry.host));
            HostConfig { unusable: Some(problem), ..HostConfig::default() }
        });
        config.hosts.insert(registry.host.clone(), host);
    }
    config.proxy = proxy(settings).unwrap_or_else(|problem| {
        problems.push(problem.clone());
        ProxyConfig { unusable: Some(problem), ..ProxyConfig::default() }
    });
    let providers = providers(settings).unwrap_or_else(|problem| {
        problems.push(problem);
        Vec::new()
    });
    let wanted = &settings.spec.credentials.from_secret;
    let named = wanted.iter().map(|one| (one.name.clone(), one.sha256.clone())).collect();
    let keychain = Keychain::new(providers, files(settings, layout)).with_given(named, given.clone());
    config.keychain = Arc::new(keychain);
    transfer(settings, &mut config);
    (config, problems)
}

/// Whether a client with the one behaves as a client with the other.
pub fn same(one: &ClientConfig, other: &ClientConfig) -> bool {
    let parts = |c: &ClientConfig| {
        (c.hosts.clone(), c.timeouts, c.transfer, c.proxy.clone(), c.max_manifest_bytes, c.retry.attempts)
    };
    parts(one) == parts(other) && one.keychain == other.keychain
}

fn host_config(registry: &RegistryHost) -> Result<HostConfig, Problem> {
    Ok(HostConfig {
        tls: tls(&registry.tls)?,
        plain_http: registry.plain_http,
        headers: pairs(&registry.headers),
        mirrors: registry.mirrors.iter().map(|m| mirror(m, registry.digest_only)).collect::<Result<_, _>>()?,
        mirrors_only: registry.fallback == Some(Fallback::Never),
        unusable: None,
    })
}

fn mirror(mirror: &RegistryMirror, digest_only: bool) -> Result<Mirror, Problem> {
    let can = |capability| mirror.capabilities.as_ref().is_none_or(|all| all.contains(&capability));
    Ok(Mirror {
        url: mirror.url.clone(),
        pull: can(Capability::Pull),
        resolve: can(Capability::Resolve) && !digest_only,
        tls: tls(&mirror.tls)?,
        headers: pairs(&mirror.headers),
        credentials: match mirror.credentials.unwrap_or_default() {
            berth_settings::MirrorCredentials::Own => MirrorCredentials::Own,
            berth_settings::MirrorCredentials::Registry => MirrorCredentials::Registry,
            berth_settings::MirrorCredentials::None => MirrorCredentials::None,
        },
    })
}

fn pairs(headers: &std::collections::BTreeMap<String, String>) -> Vec<(String, String)> {
    headers.iter().map(|(name, value)| (name.clone(), value.clone())).collect()
}

fn tls(tls: &RegistryTls) -> Result<Tls, Problem> {
    let mut ca_pem: Vec<String> = Some(tls.ca_pem.clone()).filter(|pem| !pem.is_empty()).into_iter().collect();
    if let Some(file) = &tls.ca_file {
        ca_pem.push(read("tls.caFile", file)?);
    }
    let client = match (&tls.client_cert_file, &tls.client_key_file) {
        (Some(cert), Some(key)) => Some(ClientIdentity {
            cert_pem: read("tls.clientCertFile", cert)?,
            key_pem: read("tls.clientKeyFile", key)?.into(),
        }),
        _ => None,
    };
    Ok(Tls { ca_pem, client, server_name: tls.server_name.clone(), insecure_skip_verify: tls.insecure })
}

/// Each field of the documents goes before its variable of the environment.
fn proxy(settings: &Settings) -> Result<ProxyConfig, Problem> {
    let wish = &settings.spec.proxy;
    let mut config = ProxyConfig::from_env(|name| std::env::var(name).ok()).map_err(|e| e.to_string())?;
    let credentials = match &wish.credentials_file {
        Some(file) => Some(Secret::from(read("spec.proxy.credentialsFile", file)?.trim())),
        None => None,
    };
    let own = |field: &str, url: &Option<String>| match url {
        Some(url) => Proxy::parse(field, url).map(Some).map_err(|e| e.to_string()),
        None => Ok(None),
    };
    config.http = own("spec.proxy.http", &wish.http)?.or(config.http);
    config.https = own("spec.proxy.https", &wish.https)?.or(config.https);
    if let Some(list) = &wish.no_proxy {
        config.exceptions = NoProxy::parse(list);
    }
    for proxy in [&mut config.http, &mut config.https].into_iter().flatten() {
        proxy.credentials = credentials.clone().or(proxy.credentials.take());
    }
    Ok(config)
}

/// The files of Docker's format, first the one of `berth login`.
fn files(settings: &Settings, layout: &Layout) -> Vec<PathBuf> {
    let mut files = vec![login_file(layout)];
    if let Some(file) = &settings.spec.credentials.docker_config_file {
        files.push(file.into());
        return files;
    }
    match std::env::var_os("DOCKER_CONFIG").filter(|dir| !dir.is_empty()) {
        Some(directory) => files.push(Path::new(&directory).join("config.json")),
        // A daemon with a root of its own takes nothing from the system's.
        None if layout.is_system() => files.push("/root/.docker/config.json".into()),
        None => {}
    }
    files
}

fn providers(settings: &Settings) -> Result<Vec<Provider>, Problem> {
    let wish = &settings.spec.credentials;
    let Some((file, programs)) = credential_providers(wish).map_err(|e| e.message().to_owned())? else {
        return Ok(Vec::new());
    };
    let (file, programs) = (Path::new(file), Path::new(programs));
    let limit = wish.provider_timeout.as_deref().and_then(berth_settings::seconds).unwrap_or(60);
    let mut providers = Vec::new();
    for path in provider_files(file)? {
        let text = read("spec.credentials.providerConfigFile", &path.display().to_string())?;
        for found in parse_provider_config(&text).map_err(|e| format!("{}: {e}", path.display()))? {
            let cache = found.default_cache_duration.as_deref();
            let default_cache = cache.map_or(Some(Duration::ZERO), go_duration);
            let default_cache = default_cache.ok_or_else(|| {
                format!("{}: provider {}: defaultCacheDuration is no duration", path.display(), found.name)
            })?;
            providers.push(Provider {
                program: programs.join(&found.name),
                name: found.name,
                match_images: found.match_images,
                default_cache,
                args: found.args.unwrap_or_default(),
                env: found.env.unwrap_or_default().into_iter().map(|e| (e.name, e.value.into())).collect(),
                limit: Duration::from_secs(limit),
            });
        }
    }
    Ok(providers)
}

/// The file itself, or the files of a directory in the order of their names, as the kubelet reads them.
fn provider_files(path: &Path) -> Result<Vec<PathBuf>, Problem> {
    let told = |e: std::io::Error| format!("spec.credentials.providerConfigFile: {}: {e}", path.display());
    if !std::fs::metadata(path).map_err(told)?.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut files = Vec::new();
    for entry in std::fs::read_dir(path).map_err(told)? {
        let file = entry.map_err(told)?.path();
        if file.extension().is_some_and(|e| e == "yaml" || e == "yml" || e == "json") {
            files.push(file);
        }
    }
    if files.len() > MAX_CONFIGS {
        return Err(format!("{}: has more than {MAX_CONFIGS} files", path.display()));
    }
    files.sort();
    Ok(files)
}

fn transfer(settings: &Settings, config: &mut ClientConfig) {
    let wish = &settings.spec.transfer;
    let transfer = &mut config.transfer;
    transfer.connections = wish.connections_per_blob.unwrap_or(transfer.connections);
    transfer.buffer_bytes = wish.buffer_mebibytes.map_or(transfer.buffer_bytes, |m| u64::from(m) << 20);
    config.retry.attempts = wish.attempts.unwrap_or(config.retry.attempts);
    let stall = wish.stall_timeout.as_deref().and_then(berth_settings::seconds).map(Duration::from_secs);
    config.timeouts.stall = stall.unwrap_or(config.timeouts.stall);
    config.timeouts.stall_bytes = wish.stall_bytes.unwrap_or(config.timeouts.stall_bytes);
    if let Some(bytes) = settings.limits.max_manifest_bytes {
        config.max_manifest_bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
    }
}

/// A file of text under its limit. What stands in it is not shown.
fn read(field: &str, path: &str) -> Result<String, Problem> {
    use std::io::Read;
    let mut text = String::new();
    let read = std::fs::File::open(path).and_then(|file| file.take(MAX_FILE + 1).read_to_string(&mut text));
    match read {
        Ok(_) if text.len() as u64 > MAX_FILE => Err(format!("{field}: {path} is longer than {MAX_FILE} bytes")),
        Ok(_) => Ok(text),
        Err(e) => Err(format!("{field}: {path}: {e}")),
    }
}
