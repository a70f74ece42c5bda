//! The operator's API: HTTP and JSON on a Unix socket in the spool's directory. `docs/operator-api.yaml` describes it.
//!
//! What is asked is one [`OperatorCommand`]; who answers it is an [`OperatorService`], and knows nothing of HTTP. A
//! command that has the directory to itself asks the service without a server.

mod client;
mod command;
mod server;

pub use client::{ClientError, OperatorClient};
pub use command::{LetterPage, OperatorCommand, OperatorRefusal, RefusalReason, RepublishRequest};
pub use server::{ApiServer, socket_path};

use std::{future::Future, pin::Pin};

use serde_json::Value;

/// The answer to a command, once it is there.
pub type OperatorAnswer<'a> = Pin<Box<dyn Future<Output = Result<Value, OperatorRefusal>> + Send + 'a>>;

/// Who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OperatorCaller {
    /// The user of the process that asks.
    pub uid: u32,
}

/// Who answers.
pub trait OperatorService: Send + Sync {
    fn call(&self, command: OperatorCommand, caller: OperatorCaller) -> OperatorAnswer<'_>;
}
