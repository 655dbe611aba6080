//! How a session ended, in the words of each protocol.
//!
//! Owns: the JSON status and the plain text. Must not: send them.
//! Source: `metav1.Status`, and k8s.io/apimachinery/pkg/util/remotecommand/constants.go for the reason and its cause.
use serde::Serialize;

/// How a session ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Exit code 0, or an attach whose container ended.
    Success,
    /// The command ended with this code, 1 to 255.
    Exit(i32),
    /// The command could not be executed: 126 or 127, and why.
    NotExecuted {
        /// 126 or 127.
        code: i32,
        /// Why.
        why: String,
    },
    /// Something of ours failed.
    Failed(String),
}

#[derive(Serialize)]
struct Status<'a> {
    metadata: Empty,
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    details: Option<Details<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<u16>,
}

#[derive(Serialize)]
struct Empty {}

#[derive(Serialize)]
struct Details<'a> {
    causes: [Cause<'a>; 1],
}

#[derive(Serialize)]
struct Cause<'a> {
    reason: &'static str,
    message: &'a str,
}

impl Outcome {
    /// From an exit code.
    pub fn of_code(code: i32) -> Self {
        match code {
            0 => Self::Success,
            // Clients read eight bits.
            code => Self::Exit(code & 0xff),
        }
    }

    /// The JSON status of v4 and later.
    pub fn status(&self) -> Vec<u8> {
        let code = match self {
            Self::Exit(code) | Self::NotExecuted { code, .. } => code.to_string(),
            Self::Success | Self::Failed(_) => String::new(),
        };
        let mut status = Status {
            metadata: Empty {},
            status: "Failure",
            message: self.text(),
            reason: None,
            details: None,
            code: None,
        };
        match self {
            Self::Success => status.status = "Success",
            Self::Exit(_) | Self::NotExecuted { .. } => {
                status.reason = Some("NonZeroExitCode");
                status.details = Some(Details { causes: [Cause { reason: "ExitCode", message: &code }] });
            }
            Self::Failed(_) => {
                status.reason = Some("InternalError");
                status.code = Some(500);
            }
        }
        // Strings and numbers always print.
        serde_json::to_vec(&status).unwrap_or_default()
    }

    /// The plain text of v1 to v3: nothing for a success.
    pub fn text(&self) -> Option<String> {
        match self {
            Self::Success => None,
            Self::Exit(code) => Some(format!("command terminated with non-zero exit code: {code}")),
            Self::NotExecuted { code, why } => {
                Some(format!("command terminated with non-zero exit code: {code}, it was not executed: {why}"))
            }
            Self::Failed(why) => Some(format!("Internal error occurred: {why}")),
        }
    }

    /// What goes onto the error stream or channel; `None` is nothing at all.
    pub fn encode(&self, status: bool) -> Option<Vec<u8>> {
        if status { Some(self.status()) } else { self.text().map(String::into_bytes) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn statuses() {
        let value = |outcome: Outcome| serde_json::from_slice::<Value>(&outcome.status()).unwrap();
        assert_eq!(value(Outcome::of_code(0)), json!({ "metadata": {}, "status": "Success" }));
        let exit = value(Outcome::of_code(137));
        assert_eq!(exit["reason"], "NonZeroExitCode");
        assert_eq!(exit["details"]["causes"], json!([{ "reason": "ExitCode", "message": "137" }]));
        assert_eq!(exit.get("code"), None);
        let failed = value(Outcome::Failed("no \"monitor\"".into()));
        assert_eq!((&failed["code"], &failed["reason"]), (&json!(500), &json!("InternalError")));
        assert_eq!(failed["message"], "Internal error occurred: no \"monitor\"");
        let missing = value(Outcome::NotExecuted { code: 127, why: "nope: not found".into() });
        assert_eq!(missing["details"]["causes"][0]["message"], "127");
        assert_eq!(Outcome::Success.encode(false), None);
    }
}
