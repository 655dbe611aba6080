//! What RuntimeConfig says of registries: mirrors, TLS, credentials, proxies, transfers. Types and rules.
//!
//! Must not: hold secrets. A document is readable by many; keys, passwords and tokens are named by the files that hold them.
use crate::fields::Keyed;
use crate::runtime_config::seconds;
use berth_model::{Error, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Most credentials out of the Secret, which ends at 1 MiB.
const MAX_SECRET_CREDENTIALS: usize = 32;
/// Most registries of one document.
const MAX_REGISTRIES: usize = 256;
/// Most mirrors of one registry.
const MAX_MIRRORS: usize = 16;
/// Most headers of one registry or mirror.
const MAX_HEADERS: usize = 32;
/// Longest URL of a mirror.
const MAX_URL: usize = 1024;
/// Longest path of a file, URL of a proxy, or value of a header.
const MAX_TEXT: usize = 4095;
/// Headers that carry secrets, or that the client sets itself.
const OWN_HEADERS: [&str; 10] = [
    "authorization",
    "proxy-authorization",
    "cookie",
    "host",
    "range",
    "content-length",
    "transfer-encoding",
    "connection",
    "accept",
    "user-agent",
];

/// How to talk to one registry.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RegistryHost {
    /// Host with its port, as references have it; or a pattern: `*.example.com` (any host below, with the port that it names or
    /// none), `*` (all that no other entry means).
    pub host: String,
    /// Where to look before the registry itself, in this order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mirrors: Vec<RegistryMirror>,
    /// Whether the registry itself is asked when no mirror has what is wanted: `Allow` (default) or `Never`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fallback: Option<Fallback>,
    /// Mirrors serve content by digest only: what a tag stands for is the registry's own word.
    #[serde(default)]
    pub digest_only: bool,
    /// TLS with the registry itself.
    #[serde(default)]
    pub tls: RegistryTls,
    /// Speak plain HTTP. A registry on loopback may do so without being told.
    #[serde(default)]
    pub plain_http: bool,
    /// Headers sent with every request to the registry itself. No secrets: documents are not secret.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
}

impl Keyed for RegistryHost {
    fn key(&self) -> String {
        self.host.clone()
    }
}

/// Whether a registry is asked behind its mirrors.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Fallback {
    /// It is.
    #[default]
    Allow,
    /// It is not: what no mirror has is not there.
    Never,
}

/// A mirror of a registry.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RegistryMirror {
    /// `https://HOST[:PORT][/PATH]`, or `http:`. A path with a segment `v2` is the root of its API as it stands; any other is put
    /// before the repository's name.
    pub url: String,
    /// What it is asked for; default `[Pull, Resolve]`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capabilities: Option<Vec<Capability>>,
    /// TLS with the mirror; unset is that of an entry of `spec.registries` for the mirror's own host.
    #[serde(default)]
    pub tls: RegistryTls,
    /// Headers sent with every request to the mirror. No secrets.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
    /// Whose credentials the mirror is shown: `Own` (default, those for the mirror's host), `Registry` (those for the registry that
    /// it mirrors, the pod's among them) or `None`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials: Option<MirrorCredentials>,
}

/// What a mirror may be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Capability {
    /// Content by digest.
    Pull,
    /// What a tag stands for.
    Resolve,
}

/// Whose credentials a mirror is shown.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum MirrorCredentials {
    /// Those for its own host.
    #[default]
    Own,
    /// Those for the registry that it mirrors.
    Registry,
    /// None.
    None,
}

/// TLS with one registry or mirror.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RegistryTls {
    /// Certificates of authorities to trust beside the system's, in PEM.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub ca_pem: String,
    /// A file of such certificates.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<String>,
    /// File with the node's own certificate chain in PEM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_cert_file: Option<String>,
    /// File with its private key in PEM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_key_file: Option<String>,
    /// The name that the server's certificate must have, if not that of its URL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server_name: Option<String>,
    /// Do not verify. Not together with `caPem` or `caFile`.
    #[serde(default)]
    pub insecure: bool,
}

/// Where the node's own credentials for registries come from. Those of a request come before, none after.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Credentials {
    /// A CredentialProviderConfig of the kubelet (`kubelet.config.k8s.io/v1`), or a directory of them; needs `providerBinDir`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider_config_file: Option<String>,
    /// Directory of the providers' programs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider_bin_dir: Option<String>,
    /// How long a provider may take, 1s to 5m; default `60s`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider_timeout: Option<String>,
    /// A file of Docker's format, read after that of `berth login`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub docker_config_file: Option<String>,
    /// Credentials out of the one Secret that the agents of a cluster may read (`agent.credentialsSecret` of the chart). They come before
    /// all others of the node, are handed to the daemon by the agent, and are in memory only. On a node without a cluster nobody does that.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub from_secret: Vec<SecretCredential>,
}

/// One key of that Secret. A new content is a new hash, so that it reaches the nodes in waves as any other change.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SecretCredential {
    /// The key, whose content is a configuration of Docker's format (`auths`).
    pub name: String,
    /// SHA-256 of the content, 64 lower-case hex digits (`kubectl get secret … | base64 -d | sha256sum`).
    pub sha256: String,
}

impl Keyed for SecretCredential {
    fn key(&self) -> String {
        self.name.clone()
    }
}

/// SHA-256 of some bytes, as [`SecretCredential`] has it.
pub fn sha256(bytes: &[u8]) -> String {
    let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes);
    hash.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn check_from_secret(list: &[SecretCredential]) -> Result<()> {
    if list.len() > MAX_SECRET_CREDENTIALS {
        let problem = format!("has {} entries, the limit is {MAX_SECRET_CREDENTIALS}", list.len());
        return Err(Error::invalid("spec.credentials.fromSecret", problem));
    }
    for (i, one) in list.iter().enumerate() {
        let field = |name: &str| format!("spec.credentials.fromSecret[{i}].{name}");
        // What may be a key of a Secret (IsConfigMapKey of Kubernetes' validation).
        let word = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
        if one.name.is_empty() || one.name.len() > 253 || !one.name.chars().all(word) {
            return Err(Error::invalid(field("name"), "must be 1 to 253 letters, digits and - . _"));
        }
        let hex = |c: char| matches!(c, '0'..='9' | 'a'..='f');
        if one.sha256.len() != 64 || !one.sha256.chars().all(hex) {
            return Err(Error::invalid(field("sha256"), "must be 64 lower-case hex digits"));
        }
        if list[..i].iter().any(|other| other.name == one.name) {
            return Err(Error::invalid(field("name"), format!("{:?} stands twice", one.name)));
        }
    }
    Ok(())
}

/// Proxies for the node's own requests.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Proxy {
    /// For registries in plain HTTP: `http://HOST:PORT`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http: Option<String>,
    /// For registries in HTTPS: `http://HOST:PORT`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub https: Option<String>,
    /// Who is reached directly: hosts, `.suffixes`, addresses, CIDRs, each with a port if wanted; separated by commas. Loopback always is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub no_proxy: Option<String>,
    /// A file with `USER:PASSWORD` for the proxies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials_file: Option<String>,
}

/// How image content is fetched.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Transfer {
    /// Connections for one large blob, 1 to 16; default 4.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connections_per_blob: Option<u32>,
    /// Memory for parts that arrive before their turn, of all pulls together, in MiB; default 64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub buffer_mebibytes: Option<u32>,
    /// Attempts at one request, 1 to 20; default 4.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempts: Option<u32>,
    /// How long a transfer may bring less than `stallBytes` before it is broken off and resumed, 1s to 10m; default `30s`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stall_timeout: Option<String>,
    /// Least bytes in that time; default 4096.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stall_bytes: Option<u64>,
}

/// The rules of `spec.registries`. Errors: `InvalidArgument` naming the field.
pub fn check_registries(registries: &[RegistryHost]) -> Result<()> {
    if registries.len() > MAX_REGISTRIES {
        let problem = format!("has {} entries, the limit is {MAX_REGISTRIES}", registries.len());
        return Err(Error::invalid("spec.registries", problem));
    }
    for (i, registry) in registries.iter().enumerate() {
        let field = format!("spec.registries[{i}]");
        check_host(&format!("{field}.host"), &registry.host)?;
        if registries[..i].iter().any(|other| other.host == registry.host) {
            return Err(Error::invalid(format!("{field}.host"), format!("{} stands twice", registry.host)));
        }
        check_tls(&format!("{field}.tls"), &registry.tls)?;
        check_headers(&format!("{field}.headers"), &registry.headers)?;
        if registry.plain_http && registry.tls != RegistryTls::default() {
            return Err(Error::invalid(format!("{field}.plainHttp"), "and tls exclude each other"));
        }
        check_mirrors(&field, registry)?;
    }
    Ok(())
}

fn check_mirrors(field: &str, registry: &RegistryHost) -> Result<()> {
    let mirrors = &registry.mirrors;
    if mirrors.len() > MAX_MIRRORS {
        let problem = format!("has {} entries, the limit is {MAX_MIRRORS}", mirrors.len());
        return Err(Error::invalid(format!("{field}.mirrors"), problem));
    }
    if registry.fallback == Some(Fallback::Never) && mirrors.is_empty() {
        return Err(Error::invalid(format!("{field}.fallback"), "Never needs a mirror, or nothing can be pulled"));
    }
    for (i, mirror) in mirrors.iter().enumerate() {
        let field = format!("{field}.mirrors[{i}]");
        let rest =
            mirror.url.strip_prefix("https://").or_else(|| mirror.url.strip_prefix("http://")).unwrap_or_default();
        let host = rest.split('/').next().unwrap_or_default();
        if host.is_empty()
            || mirror.url.len() > MAX_URL
            || rest.contains(['@', '?', '#', ' ', '\\'])
            || rest.contains("..")
        {
            let problem = "must be https://HOST[:PORT][/PATH] or http://..., without user name, query and fragment";
            return Err(Error::invalid(format!("{field}.url"), problem));
        }
        if mirrors[..i].iter().any(|other| other.url == mirror.url) {
            return Err(Error::invalid(format!("{field}.url"), format!("{} stands twice", mirror.url)));
        }
        if mirror.capabilities.as_ref().is_some_and(Vec::is_empty) {
            return Err(Error::invalid(format!("{field}.capabilities"), "must name Pull, Resolve or both"));
        }
        check_tls(&format!("{field}.tls"), &mirror.tls)?;
        check_headers(&format!("{field}.headers"), &mirror.headers)?;
    }
    Ok(())
}

/// `host[:port]`, `*.domain[:port]` or `*`.
fn check_host(field: &str, host: &str) -> Result<()> {
    let name = host.strip_prefix("*.").unwrap_or(host);
    let plain = |c: char| c.is_ascii_alphanumeric() || ".-_:[]".contains(c);
    if host == "*" || (!name.is_empty() && name.len() <= 255 && name.chars().all(plain)) {
        return Ok(());
    }
    Err(Error::invalid(field, "must be a host name with an optional port, *.DOMAIN or *"))
}

fn check_tls(field: &str, tls: &RegistryTls) -> Result<()> {
    let own = |name: &str| format!("{field}.{name}");
    if tls.insecure && (!tls.ca_pem.is_empty() || tls.ca_file.is_some()) {
        return Err(Error::invalid(field, "insecure and caPem or caFile exclude each other"));
    }
    if !tls.ca_pem.is_empty() && !tls.ca_pem.contains("-----BEGIN CERTIFICATE-----") {
        return Err(Error::invalid(own("caPem"), "must hold certificates in PEM"));
    }
    if tls.client_cert_file.is_some() != tls.client_key_file.is_some() {
        return Err(Error::invalid(own("clientCertFile"), "and clientKeyFile must be set together"));
    }
    let files =
        [("caFile", &tls.ca_file), ("clientCertFile", &tls.client_cert_file), ("clientKeyFile", &tls.client_key_file)];
    files.into_iter().try_for_each(|(name, path)| check_path(&own(name), path.as_deref()))?;
    match &tls.server_name {
        Some(name) if name.is_empty() || name.len() > 255 => {
            Err(Error::invalid(own("serverName"), "must be a host name"))
        }
        _ => Ok(()),
    }
}

fn check_headers(field: &str, headers: &BTreeMap<String, String>) -> Result<()> {
    if headers.len() > MAX_HEADERS {
        return Err(Error::invalid(field, format!("has {} entries, the limit is {MAX_HEADERS}", headers.len())));
    }
    for (name, value) in headers {
        let token = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b));
        if !token || value.len() > MAX_TEXT || !value.bytes().all(|b| (0x20..0x7f).contains(&b)) {
            return Err(Error::invalid(format!("{field}[{name:?}]"), "must be a header's name and printable ASCII"));
        }
        if OWN_HEADERS.contains(&name.to_ascii_lowercase().as_str()) {
            let remedy = "cannot be set here; credentials are set by `berth login` or spec.credentials";
            return Err(Error::invalid(format!("{field}[{name:?}]"), remedy));
        }
    }
    Ok(())
}

pub(crate) fn check_credentials(credentials: &Credentials) -> Result<()> {
    let field = |name: &str| format!("spec.credentials.{name}");
    let Credentials {
        provider_config_file: config,
        provider_bin_dir: bin,
        provider_timeout,
        docker_config_file: docker,
        from_secret,
    } = credentials;
    check_from_secret(from_secret)?;
    for (name, path) in [("providerConfigFile", config), ("providerBinDir", bin), ("dockerConfigFile", docker)] {
        check_path(&field(name), path.as_deref())?;
    }
    check_duration(&field("providerTimeout"), provider_timeout.as_deref(), 300)
}

pub(crate) fn check_proxy(proxy: &Proxy) -> Result<()> {
    for (name, url) in [("http", &proxy.http), ("https", &proxy.https)] {
        let Some(url) = url else { continue };
        let field = format!("spec.proxy.{name}");
        if url.contains('@') {
            return Err(Error::invalid(
                field,
                "must not hold a password; put USER:PASSWORD into the file of credentialsFile",
            ));
        }
        let host = url.strip_prefix("http://").unwrap_or_default();
        if host.is_empty() || url.len() > MAX_TEXT || host.trim_end_matches('/').contains(['/', '?', '#', ' ']) {
            return Err(Error::invalid(field, "must be http://HOST:PORT"));
        }
    }
    if proxy.no_proxy.as_ref().is_some_and(|list| list.len() > 16 * MAX_TEXT) {
        return Err(Error::invalid("spec.proxy.noProxy", format!("is longer than {} bytes", 16 * MAX_TEXT)));
    }
    check_path("spec.proxy.credentialsFile", proxy.credentials_file.as_deref())
}

pub(crate) fn check_transfer(transfer: &Transfer) -> Result<()> {
    let all = [
        ("connectionsPerBlob", transfer.connections_per_blob.map(u64::from), 1, 16),
        ("bufferMebibytes", transfer.buffer_mebibytes.map(u64::from), 4, 4096),
        ("attempts", transfer.attempts.map(u64::from), 1, 20),
        ("stallBytes", transfer.stall_bytes, 1, 1 << 30),
    ];
    for (name, value, least, most) in all {
        if value.is_some_and(|v| v < least || v > most) {
            return Err(Error::invalid(format!("spec.transfer.{name}"), format!("must be {least} to {most}")));
        }
    }
    check_duration("spec.transfer.stallTimeout", transfer.stall_timeout.as_deref(), 600)
}

fn check_duration(field: &str, text: Option<&str>, most: u64) -> Result<()> {
    match text {
        Some(text) if !seconds(text).is_some_and(|s| (1..=most).contains(&s)) => {
            Err(Error::invalid(field, format!("{text:?} is not a duration from 1s to {}m, like 60s or 2m", most / 60)))
        }
        _ => Ok(()),
    }
}

fn check_path(field: &str, path: Option<&str>) -> Result<()> {
    match path {
        Some(path) if !path.starts_with('/') || path.len() > MAX_TEXT || path.contains('\0') => {
            Err(Error::invalid(field, format!("must be an absolute path of at most {MAX_TEXT} bytes")))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use crate::parse_documents;

    fn refused(spec: &str, field: &str) {
        let text =
            format!("apiVersion: berth.dev/v1alpha1\nkind: RuntimeConfig\nmetadata: {{name: a}}\nspec: {spec}\n");
        let e = parse_documents(&text).unwrap_err();
        assert!(e.message().contains(field) && !e.message().contains("sesame"), "{spec}: {e}");
    }

    #[test]
    fn good_ones_are_taken() {
        let spec = "{registries: [{host: docker.io, fallback: Never, digestOnly: true, headers: {X-Team: a}, mirrors: [{url: 'https://m/hub', \
            capabilities: [Pull], credentials: Registry, tls: {caFile: /etc/ca.pem, serverName: m.example}}]}, {host: '*.example:5000'}, {host: '*'}], \
            credentials: {providerConfigFile: /a, providerBinDir: /b, providerTimeout: 10s, dockerConfigFile: /c}, \
            proxy: {https: 'http://p:3128', noProxy: '.svc,10.0.0.0/8', credentialsFile: /p}, transfer: {connectionsPerBlob: 2, stallTimeout: 1m}}";
        let text =
            format!("apiVersion: berth.dev/v1alpha1\nkind: RuntimeConfig\nmetadata: {{name: a}}\nspec: {spec}\n");
        assert_eq!(parse_documents(&text).unwrap().len(), 1);
    }

    #[test]
    fn bad_ones_name_the_field() {
        let mirror = |m: &str| format!("{{registries: [{{host: a, mirrors: [{m}]}}]}}");
        refused("{registries: [{host: 'a/b'}]}", "registries[0].host");
        refused("{registries: [{host: 'a*'}]}", "registries[0].host");
        refused("{registries: [{host: a}, {host: a}]}", "stands twice");
        refused("{registries: [{host: a, fallback: Never}]}", "fallback");
        refused("{registries: [{host: a, headers: {Authorization: sesame}}]}", "berth login");
        refused("{registries: [{host: a, plainHttp: true, tls: {insecure: true}}]}", "plainHttp");
        refused(&mirror("{url: 'https://u:sesame@m'}"), "mirrors[0].url");
        refused(&mirror("{url: m.example}"), "mirrors[0].url");
        refused(&mirror("{url: 'https://m', capabilities: []}"), "capabilities");
        refused(&mirror("{url: 'https://m', capabilities: [Push]}"), "Push");
        refused(&mirror("{url: 'https://m', tls: {clientCertFile: /a}}"), "clientKeyFile");
        refused(&mirror("{url: 'https://m', tls: {caFile: a}}"), "caFile");
        refused("{credentials: {providerConfigFile: x}}", "spec.credentials.providerConfigFile");
        refused("{credentials: {providerTimeout: 1h}}", "providerTimeout");
        refused("{proxy: {https: 'http://u:sesame@p'}}", "credentialsFile");
        refused("{proxy: {https: 'socks5://p'}}", "spec.proxy.https");
        refused("{transfer: {connectionsPerBlob: 17}}", "1 to 16");
        refused("{transfer: {stallTimeout: 0s}}", "stallTimeout");
    }
}
