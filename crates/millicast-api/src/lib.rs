//! The provider's REST API for webhooks, as a typed client: Millicast's own description of it, of 2025-04, and what it
//! has had since.
//!
//! [`WebhookClient`] has a method for each call. What holds for all of them:
//!
//! - **A call is repeated only where that is safe**: one that reads, and a change that comes to the same when it is
//!   made twice. Any call is repeated that was not carried out: there was no connection, or the API answered 429. What
//!   it asks for in `Retry-After` is kept, up to [`ClientOptions::wait_max`] in all; then the error says so.
//! - **Everything has an end**: a deadline for each request, a size for each answer, a number for what is listed.
//! - **The token goes to one address**: redirects are not followed, and neither `Debug` nor an error has it, also where
//!   the API's own text does.
//! - **The description drifts**: a field that is not known here is kept in [`Webhook::more`], one that is missing has
//!   the description's default.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use forebay_millicast_api::{ApiToken, BASE_URL, ClientOptions, ListOrder, WebhookClient};
//!
//! let token = ApiToken::parse(&std::env::var("MILLICAST_TOKEN")?)?;
//! let client = WebhookClient::new(BASE_URL, token, ClientOptions::default())?;
//! for webhook in client.list(&ListOrder::default()).await? {
//!     println!("{} {}", webhook.id, webhook.url);
//! }
//! # Ok(())
//! # }
//! ```

mod answer;
mod client;
mod error;
mod retry;
mod token;
mod webhook;

pub use client::{BASE_URL, ClientOptions, ListOrder, WEBHOOKS_MAX, WebhookClient};
pub use error::{ApiError, ApiRefusal, ClientSetupError, RetryAdvice};
pub use token::{ApiToken, TokenError};
pub use webhook::{
    FilterChange, NewWebhook, TestSubject, Webhook, WebhookChange, WebhookDisabled, WebhookKinds, WebhookSecret,
    WebhookType,
};
