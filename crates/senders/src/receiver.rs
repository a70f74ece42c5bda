//! What receives one endpoint's webhooks, whoever sends them.

use std::sync::{
    Arc,
    atomic::{AtomicI64, Ordering},
};

use bytes::Bytes;
use forebay_event::{Event, Time, text};
use parking_lot::RwLock;
use subtle::{Choice, ConditionallySelectable as _};

use super::{Secret, Sender, SignatureError, SigningKey};

/// Secrets that were taken out of use and are remembered.
const RETIRED_KEYS_MAX: usize = 8;

/// A request's headers, whatever server read them.
pub trait HeaderLookup {
    /// The value of the header `name` (in any case), if it is there exactly once.
    fn value(&self, name: &str) -> Option<&[u8]>;
}

/// A request as it came, of which nothing is believed yet.
pub struct UnverifiedRequest<'a> {
    pub headers: &'a dyn HeaderLookup,
    pub body: Bytes,
    pub received: Time,
}

/// A request whose signature one of the endpoint's secrets made. Only [`EndpointReceiver::verify`] makes one.
pub struct VerifiedRequest<'a> {
    request: UnverifiedRequest<'a>,
}

impl<'a> VerifiedRequest<'a> {
    pub fn into_request(self) -> UnverifiedRequest<'a> {
        self.request
    }
}

/// The headers that a request's signature needs, apart from the request.
#[derive(Debug, Clone)]
pub struct SignatureHeaders(Vec<(&'static str, Vec<u8>)>);

impl SignatureHeaders {
    /// Those of a request to this sender's endpoint.
    pub fn from_headers(sender: &dyn Sender, headers: &dyn HeaderLookup) -> Self {
        let names = sender.signature_headers().iter();
        let found = names.filter_map(|name| Some((*name, headers.value(name)?.to_vec())));
        Self(found.collect())
    }

    /// The signature itself.
    pub fn signature(&self, sender: &dyn Sender) -> Option<&[u8]> {
        self.value(sender.signature_headers().first()?)
    }
}

impl HeaderLookup for SignatureHeaders {
    fn value(&self, name: &str) -> Option<&[u8]> {
        let mut headers = self.0.iter();
        let (_, value) = headers.find(|(other, _)| other.eq_ignore_ascii_case(name))?;
        Some(value)
    }
}

/// Whose events an endpoint takes for what they name themselves.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EndpointAccounts {
    /// Of events that name none, and of those that name one that is not listed.
    pub own: Option<String>,
    /// Empty: any.
    pub listed: Vec<String>,
}

/// What says whom an event is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FactSource {
    /// The signature covers it.
    Signed,
    /// It does not.
    Unsigned,
}

impl EndpointAccounts {
    /// Whether an event may be of the account that it names. Where any may be, what is not signed still chooses none in
    /// place of the endpoint's own.
    pub fn include(&self, account: &str, source: FactSource) -> bool {
        let own = self.own.as_deref();
        match source {
            _ if !self.listed.is_empty() => self.listed.iter().any(|listed| listed == account),
            FactSource::Signed => true,
            FactSource::Unsigned => own.is_none_or(|own| own == account),
        }
    }
}

/// Where an event comes from: what its endpoint knows, and learns from the events that name an account.
pub struct EventOrigin {
    endpoint: String,
    accounts: EndpointAccounts,
    learned: RwLock<Option<Arc<str>>>,
}

impl EventOrigin {
    /// The endpoint's name, as an attribute.
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    pub fn accounts(&self) -> &EndpointAccounts {
        &self.accounts
    }

    /// The account that the newest signed body to name one named.
    pub fn learned_account(&self) -> Option<Arc<str>> {
        self.learned.read().clone()
    }

    /// A signed body named this account.
    pub fn learn(&self, account: &str) {
        if self.learned.read().as_deref() != Some(account) {
            *self.learned.write() = Some(account.into());
        }
    }
}

/// Receives one endpoint's webhooks: verifies them, and has its sender make events of them.
///
/// Shared by all requests of the endpoint.
pub struct EndpointReceiver {
    sender: &'static dyn Sender,
    origin: EventOrigin,
    keys: RwLock<EndpointKeys>,
}

/// The keys that an endpoint has, and had.
#[derive(Clone, Default)]
pub(crate) struct EndpointKeys {
    pub active: Arc<[Arc<EndpointKey>]>,
    /// Those that were active before, the newest first: who still signs with one of them can be told from a stranger.
    pub retired: Arc<[Arc<EndpointKey>]>,
}

/// A secret that is ready to check signatures, and when it last was the right one.
pub(crate) struct EndpointKey {
    secret: Secret,
    checks: Box<dyn SigningKey>,
    /// In seconds since the Unix epoch; 0: never.
    last_match_s: AtomicI64,
}

impl EndpointKey {
    fn new(sender: &dyn Sender, secret: &Secret) -> Self {
        Self {
            secret: secret.clone(),
            checks: sender.signing_key(secret),
            last_match_s: AtomicI64::new(0),
        }
    }

    /// The key that somebody has who leaves the secret undecoded.
    pub fn undecoded(&self, sender: &dyn Sender) -> Self {
        Self::new(sender, &self.secret.undecoded())
    }

    /// Whether it made a signature.
    pub fn has_made(&self, headers: &dyn HeaderLookup, body: &[u8]) -> bool {
        self.checks.has_made(headers, body).into()
    }

    fn last_match_s(&self) -> Option<i64> {
        Some(self.last_match_s.load(Ordering::Relaxed)).filter(|seconds| *seconds != 0)
    }

    /// It made the signature of a request that came then.
    fn matched(&self, received: Time) {
        let seconds = received.0.div_euclid(1000);
        // All requests of a second share one write: the cores would pass the cache's line around.
        if self.last_match_s.load(Ordering::Relaxed) != seconds {
            self.last_match_s.store(seconds, Ordering::Relaxed);
        }
    }
}

impl EndpointReceiver {
    /// Takes the events of `account` alone for its own; without one, those of any.
    pub fn new(sender: &'static dyn Sender, endpoint: &str, account: Option<&str>, secrets: Vec<Secret>) -> Self {
        let own = account.map(str::to_owned);
        EndpointReceiver {
            sender,
            origin: EventOrigin {
                endpoint: text::attribute(endpoint).into_owned(),
                accounts: EndpointAccounts {
                    listed: own.iter().cloned().collect(),
                    own,
                },
                learned: RwLock::new(None),
            },
            keys: RwLock::new(EndpointKeys::default().replaced_by(sender, &secrets)),
        }
    }

    pub fn with_accounts(mut self, accounts: EndpointAccounts) -> Self {
        self.origin.accounts = accounts;
        self
    }

    /// Who sends here.
    pub fn sender(&self) -> &'static dyn Sender {
        self.sender
    }

    pub fn accounts(&self) -> &EndpointAccounts {
        self.origin.accounts()
    }

    /// Replaces the active secrets, as after a rotation. Of those that stay, it stays known when they were last the
    /// right ones.
    pub fn set_secrets(&self, secrets: Vec<Secret>) {
        let mut keys = self.keys.write();
        *keys = keys.replaced_by(self.sender, &secrets);
    }

    /// When each of the active secrets last made a request's signature, in seconds since the Unix epoch.
    pub fn last_matches(&self) -> Vec<Option<i64>> {
        self.keys.read().active.iter().map(|key| key.last_match_s()).collect()
    }

    /// The account that the newest signed body to name one named.
    pub fn learned_account(&self) -> Option<Arc<str>> {
        self.origin.learned_account()
    }

    /// Takes over an account that was learned before, unless a newer one is known, or its events are no longer the
    /// endpoint's.
    pub fn remember_account(&self, account: &str) {
        if self.accounts().include(account, FactSource::Signed) {
            self.origin.learned.write().get_or_insert_with(|| account.into());
        }
    }

    /// Checks that a request has a signature that could be right, before its body has come.
    ///
    /// # Errors
    ///
    /// It has none, or one that is not of the sender's form.
    pub fn check_form(&self, headers: &dyn HeaderLookup) -> Result<(), SignatureError> {
        self.sender.check_form(headers)
    }

    /// Checks the signature over the raw body against every active secret, without telling by its time which one made
    /// it.
    ///
    /// # Errors
    ///
    /// None of the active secrets made it.
    pub fn verify<'a>(&self, request: UnverifiedRequest<'a>) -> Result<VerifiedRequest<'a>, SignatureError> {
        let keys = Arc::clone(&self.keys.read().active);
        let mut found = Choice::from(0);
        let mut index_found = 0_u64;
        for (index, key) in (0..).zip(keys.iter()) {
            let matched = key.checks.has_made(request.headers, &request.body);
            index_found.conditional_assign(&index, matched);
            found |= matched;
        }
        if !bool::from(found) {
            // One that was made has the right form, so that is asked of the others alone.
            self.check_form(request.headers)?;
            return Err(SignatureError::Wrong);
        }
        keys[index_found as usize].matched(request.received);
        Ok(VerifiedRequest { request })
    }

    /// Makes an event of what is authentic; never fails, whatever the content.
    pub fn event(&self, request: VerifiedRequest<'_>) -> Event {
        self.sender.event(&self.origin, request)
    }

    pub(crate) fn keys(&self) -> EndpointKeys {
        self.keys.read().clone()
    }
}

impl EndpointKeys {
    /// The keys of these secrets, taken over where they are there already.
    fn replaced_by(&self, sender: &dyn Sender, secrets: &[Secret]) -> Self {
        let key = |secret: &Secret| {
            let known = self.active.iter().find(|key| key.secret == *secret);
            known
                .cloned()
                .unwrap_or_else(|| Arc::new(EndpointKey::new(sender, secret)))
        };
        let active: Arc<[_]> = secrets.iter().map(key).collect();
        let was_active = self.active.iter().chain(self.retired.iter());
        let retired = was_active.filter(|key| !secrets.contains(&key.secret));
        Self {
            retired: retired.take(RETIRED_KEYS_MAX).cloned().collect(),
            active,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{millicast::Millicast, testing::Given};

    fn secret(text: &str) -> Secret {
        Secret::from_base64(text).unwrap()
    }

    #[test]
    fn any_active_secret_will_do_and_none_will_not() {
        const RIGHT: &str = "cmlnaHQ=";
        let headers = Given(Millicast.sign(&secret(RIGHT), b"body"));
        for (secrets, matched) in [
            (&["b3RoZXI=", RIGHT][..], Some(1)),
            (&[RIGHT, "b3RoZXI="], Some(0)),
            (&["b3RoZXI="], None),
            (&[], None),
        ] {
            let secrets: Vec<Secret> = secrets.iter().copied().map(secret).collect();
            let receiver = EndpointReceiver::new(&Millicast, "acme", None, secrets);
            let verified = receiver.verify(UnverifiedRequest {
                headers: &headers,
                body: Bytes::from_static(b"body"),
                received: Time(5_000),
            });
            assert_eq!(verified.err(), matched.is_none().then_some(SignatureError::Wrong));
            let at = receiver.last_matches().iter().position(Option::is_some);
            assert_eq!(at, matched, "the one that made it is known");
        }
    }
}
