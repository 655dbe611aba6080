//! The real kubectl, as people and scripts run it, inside a node. Owns: its processes and answers. Must not: talk to the API server
//! by itself.
use crate::programs;
use crate::space::NodeSpace;
use serde_json::Value;
use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ran {
    /// Exit code; -1 for a signal.
    pub code: i32,
    /// Standard output.
    pub out: Vec<u8>,
    /// Standard error.
    pub err: String,
}

impl Ran {
    /// Standard output as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.out).into_owned()
    }
}

/// How exec, attach and port-forward travel to the API server.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Transport {
    /// As kubectl chooses by itself.
    #[default]
    WebSocket,
    /// The older one, still chosen by clients that know no other.
    Spdy,
}

/// kubectl for one namespace.
#[derive(Clone)]
pub struct Kubectl<'a> {
    space: &'a NodeSpace,
    kubeconfig: PathBuf,
    namespace: String,
    transport: Transport,
}

impl<'a> Kubectl<'a> {
    /// As the user of this kubeconfig.
    pub fn new(space: &'a NodeSpace, kubeconfig: PathBuf, namespace: &str) -> Self {
        Self { space, kubeconfig, namespace: namespace.to_owned(), transport: Transport::default() }
    }

    /// The same over another transport.
    #[must_use]
    pub fn over(&self, transport: Transport) -> Self {
        Self { transport, ..self.clone() }
    }

    /// The namespace.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// The kubeconfig.
    pub fn kubeconfig(&self) -> &std::path::Path {
        &self.kubeconfig
    }

    /// The node that it runs on.
    pub fn space(&self) -> &'a NodeSpace {
        self.space
    }

    /// A command to be changed and started by the caller.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = self.space.command("tools", programs::kubernetes("kubectl"));
        command.arg("--kubeconfig").arg(&self.kubeconfig).args(["--namespace", &self.namespace]).args(args);
        // Discovery is kept per user otherwise, for ever, under the home directory.
        command.env("KUBECACHEDIR", self.space.base().join("kubectl-cache"));
        if self.transport == Transport::Spdy {
            command.env("KUBECTL_REMOTE_COMMAND_WEBSOCKETS", "false").env("KUBECTL_PORT_FORWARD_WEBSOCKETS", "false");
        }
        command
    }

    /// Runs it with this on standard input.
    pub fn try_with(&self, args: &[&str], stdin: &[u8]) -> Ran {
        let mut command = self.command(args);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut input = child.stdin.take().unwrap();
        std::thread::scope(|scope| {
            // A program that ends before it has read everything closes the pipe: that is its right.
            scope.spawn(move || input.write_all(stdin));
            let output = child.wait_with_output().unwrap();
            let code = output.status.code().unwrap_or(-1);
            Ran { code, out: output.stdout, err: String::from_utf8_lossy(&output.stderr).into_owned() }
        })
    }

    /// Runs it.
    pub fn try_run(&self, args: &[&str]) -> Ran {
        self.try_with(args, b"")
    }

    /// Runs it; it must succeed. Its standard output.
    #[track_caller]
    pub fn run(&self, args: &[&str]) -> String {
        let ran = self.try_run(args);
        assert_eq!(ran.code, 0, "kubectl {args:?}: {}{}", ran.text(), ran.err);
        ran.text()
    }

    /// The same with `-o json`.
    #[track_caller]
    pub fn json(&self, args: &[&str]) -> Value {
        let text = self.run(&[args, &["-o", "json"]].concat());
        serde_json::from_str(&text).unwrap_or_else(|e| panic!("kubectl {args:?}: {e}: {text}"))
    }

    /// The object, or why not.
    pub fn get(&self, kind: &str, name: &str) -> Result<Value, String> {
        let ran = self.try_run(&["get", kind, name, "-o", "json"]);
        if ran.code == 0 { serde_json::from_slice(&ran.out).map_err(|e| e.to_string()) } else { Err(ran.err) }
    }

    /// Applies an object, or a `List` of them.
    #[track_caller]
    pub fn apply(&self, object: &Value) {
        let ran = self.try_with(&["apply", "-f", "-"], object.to_string().as_bytes());
        assert_eq!(ran.code, 0, "kubectl apply: {}{}\n{object}", ran.text(), ran.err);
    }

    /// Starts it, with all three streams as pipes.
    pub fn spawn(&self, args: &[&str]) -> Running {
        let mut command = self.command(args);
        let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        Running { child }
    }
}

/// A kubectl that runs on, such as `port-forward` or `logs -f`. Dropping it kills it.
pub struct Running {
    /// The process.
    pub child: Child,
}

impl Running {
    /// Reads standard output up to and with this text. Fails by panicking where it ends before.
    pub fn read_until(&mut self, text: &str) -> String {
        let out = self.child.stdout.as_mut().unwrap();
        let mut seen = Vec::new();
        let mut byte = [0];
        while !String::from_utf8_lossy(&seen).contains(text) {
            if out.read(&mut byte).unwrap() == 0 {
                let mut err = String::new();
                let _ = self.child.stderr.as_mut().unwrap().read_to_string(&mut err);
                panic!("ended before {text:?}: {}{err}", String::from_utf8_lossy(&seen));
            }
            seen.push(byte[0]);
        }
        String::from_utf8_lossy(&seen).into_owned()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
