//! The plugins of a network, run one after the other for one operation (CNI specification 1.1, section 3).
//! Must not: keep anything; choose a configuration.
use super::call::{Target, Verb, attachment_input, environment, network_input};
use super::config::{NetworkConfig, PluginConfig};
use super::exec::{self, Call};
use super::record::check_nesting;
use super::result::{AddResult, supported_versions};
use super::secrets::Secrets;
use berth_model::{Error, ErrorKind, Result};
use serde_json::{Map, Value};
use std::path::{Path, PathBuf};
use tokio::time::Instant;

/// A network with what is needed to run its plugins.
#[derive(Clone, Copy)]
pub(super) struct Chain<'a> {
    pub(super) network: &'a NetworkConfig,
    pub(super) secrets: &'a Secrets,
    pub(super) bin_dirs: &'a [PathBuf],
}

impl Chain<'_> {
    /// ADD of all plugins, each told the result of the one before. Errors: the first one that fails; what the ones before did
    /// is for DEL to undo.
    pub(super) async fn add(&self, target: &Target, deadline: Instant) -> Result<AddResult> {
        // None is run when one of them cannot be.
        self.programs()?;
        let mut result: Option<AddResult> = None;
        for (number, plugin) in self.network.plugins.iter().enumerate() {
            let previous = result.as_ref().map(|r| &r.raw);
            let input = attachment_input(self.network, plugin, target, previous);
            let output = self.call(Verb::Add, number, Some(target), &input, deadline).await?;
            let parsed = AddResult::parse(&output).and_then(|parsed| check_nesting(&parsed.raw).map(|()| parsed));
            result = Some(parsed.map_err(|e| self.told(Verb::Add, number, &self.about_hidden(&output, e)))?);
        }
        result.ok_or_else(|| Error::internal("a network without plugins"))
    }

    /// DEL of all plugins, last one first. Errors: the first one that fails.
    pub(super) async fn del(
        &self,
        target: &Target,
        previous: Option<&Map<String, Value>>,
        deadline: Instant,
    ) -> Result<()> {
        for (number, plugin) in self.network.plugins.iter().enumerate().rev() {
            let input = attachment_input(self.network, plugin, target, previous);
            self.call(Verb::Del, number, Some(target), &input, deadline).await?;
        }
        Ok(())
    }

    /// CHECK of all plugins. Errors: the first one that finds something wrong.
    pub(super) async fn check(&self, target: &Target, previous: &Map<String, Value>, deadline: Instant) -> Result<()> {
        for (number, plugin) in self.network.plugins.iter().enumerate() {
            let input = attachment_input(self.network, plugin, target, Some(previous));
            self.call(Verb::Check, number, Some(target), &input, deadline).await?;
        }
        Ok(())
    }

    /// GC of all plugins, also after one that failed. Errors: all of them.
    pub(super) async fn gc(&self, valid: &[(String, String)], deadline: Instant) -> Result<()> {
        let mut problems = Vec::new();
        for (number, plugin) in self.network.plugins.iter().enumerate() {
            let input = network_input(self.network, plugin, Some(valid));
            if let Err(e) = self.call(Verb::Gc, number, None, &input, deadline).await {
                problems.push(e.to_string());
            }
        }
        if problems.is_empty() { Ok(()) } else { Err(Error::internal(problems.join("; "))) }
    }

    /// STATUS of all plugins. Errors: the first one that is not ready.
    pub(super) async fn status(&self, deadline: Instant) -> Result<()> {
        for (number, plugin) in self.network.plugins.iter().enumerate() {
            let input = network_input(self.network, plugin, None);
            self.call(Verb::Status, number, None, &input, deadline).await?;
        }
        Ok(())
    }

    /// Whether the plugin's program speaks the network's version. One that does not answer the question is given the benefit of
    /// the doubt: small plugins know no VERSION. Errors: `FailedPrecondition` naming both versions.
    pub(super) async fn speaks(&self, number: usize, deadline: Instant) -> Result<()> {
        let wanted = self.network.version.to_string();
        let input = serde_json::json!({ "cniVersion": wanted });
        let Ok(output) = self.call(Verb::Version, number, None, &input, deadline).await else { return Ok(()) };
        match supported_versions(&output) {
            Some(known) if !known.contains(&wanted) => {
                let known = known.join(", ");
                let problem = format!("supports the CNI versions {known}; the configuration is of {wanted}");
                Err(Error::new(ErrorKind::FailedPrecondition, format!("{} {problem}", self.title(number))))
            }
            _ => Ok(()),
        }
    }

    /// The programs of all plugins. Errors: `FailedPrecondition` naming the first one that is missing.
    pub(super) fn programs(&self) -> Result<Vec<PathBuf>> {
        self.network.plugins.iter().enumerate().map(|(number, plugin)| self.program(number, plugin)).collect()
    }

    fn program(&self, number: usize, plugin: &PluginConfig) -> Result<PathBuf> {
        let candidates = self.bin_dirs.iter().map(|dir| dir.join(&plugin.kind));
        candidates.into_iter().find(|path| is_file(path)).ok_or_else(|| {
            let dirs: Vec<String> = self.bin_dirs.iter().map(|d| d.display().to_string()).collect();
            let problem = format!("is not in {} (spec.network.cni.binDirs)", dirs.join(", "));
            Error::new(ErrorKind::FailedPrecondition, format!("{} {problem}", self.title(number)))
        })
    }

    async fn call(
        &self,
        verb: Verb,
        number: usize,
        target: Option<&Target>,
        input: &Value,
        deadline: Instant,
    ) -> Result<Vec<u8>> {
        let program = self.program(number, &self.network.plugins[number])?;
        let call = Call {
            program: &program,
            verb,
            environment: environment(verb, target, self.bin_dirs),
            input: input.to_string().into_bytes(),
        };
        let told = |failure: exec::Failure| self.told(verb, number, &failure.hiding(self.secrets).into_error());
        exec::run(call, deadline).await.map_err(told)
    }

    /// What is wrong with a result, in words that quote it without secrets: quotes are shortened.
    fn about_hidden(&self, output: &[u8], e: Error) -> Error {
        let hidden = self.secrets.hide(&String::from_utf8_lossy(output));
        AddResult::parse(hidden.as_bytes()).err().unwrap_or(e)
    }

    /// An error as people get it: network, plugin, operation; without secrets.
    fn told(&self, verb: Verb, number: usize, e: &Error) -> Error {
        let message = format!("{}: {}: {}", self.title(number), verb.name(), e.message());
        Error::new(e.kind(), self.secrets.hide(&message))
    }

    fn title(&self, number: usize) -> String {
        let (name, count) = (&self.network.name, self.network.plugins.len());
        let kind = self.network.plugins.get(number).map(|p| p.kind.as_str()).unwrap_or_default();
        format!("CNI network {name}: plugin {kind} ({} of {count})", number + 1)
    }
}

fn is_file(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|m| m.is_file())
}
