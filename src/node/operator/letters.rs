//! Dead letters: shown, and discarded.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use super::{NodeOperator, disk};
use crate::{
    api::{LetterPage, OperatorCaller, OperatorRefusal, RefusalReason, RepublishRequest},
    event::{Event, Time},
    job::{KeptLetter, LettersError},
    senders,
};

impl NodeOperator {
    /// The routes that are meant: one, or all that have dead letters.
    pub(super) fn letter_routes(&self, route: Option<&str>) -> Result<Vec<String>, OperatorRefusal> {
        let kept: Vec<String> = self.shared.dead_letters.kept().routes.into_keys().collect();
        match route {
            None => Ok(kept),
            // One that is no longer configured may have some.
            Some(route) if kept.iter().any(|one| one == route) => Ok(vec![route.to_owned()]),
            Some(route) => self.route(route).map(|_| Vec::new()),
        }
    }

    /// A page of dead letters, with where the next one begins.
    pub(super) async fn letters(&self, page: LetterPage) -> Result<Value, OperatorRefusal> {
        let after = page.after.as_deref().map(parse_place).transpose()?;
        let mut found = Vec::new();
        for route in self.letter_routes(page.route.as_deref())? {
            let from = match &after {
                Some((of, _)) if route < *of => continue,
                Some((of, number)) if route == *of => *number,
                _ => 0,
            };
            let Some(mut reading) = self.shared.dead_letters.read(&route, from).await.map_err(unreadable)? else {
                continue;
            };
            while let Some(kept) = reading.next().await.map_err(unreadable)? {
                if !page.selection.has_letter(kept.number, &kept.letter) {
                    continue;
                }
                if found.len() == page.limit {
                    let last: Option<&Value> = found.last();
                    let next =
                        last.map(|last| format!("{}/{}", last["route"].as_str().unwrap_or_default(), last["number"]));
                    return Ok(json!({ "dead_letters": found, "next": next }));
                }
                found.push(shown(&kept));
            }
        }
        Ok(json!({ "dead_letters": found, "next": null }))
    }

    /// One dead letter, with its body.
    pub(super) async fn letter(&self, route: &str, number: u64) -> Result<Value, OperatorRefusal> {
        let unknown = || {
            let text = format!("route {route:?} has no dead letter {number}: it may have been redriven, or discarded");
            OperatorRefusal::new(RefusalReason::UnknownLetter, text)
        };
        let reading = self.shared.dead_letters.read(route, number.saturating_sub(1)).await;
        let mut reading = reading.map_err(unreadable)?.ok_or_else(unknown)?;
        let kept = reading.next().await.map_err(unreadable)?;
        let kept = kept.filter(|kept| kept.number == number).ok_or_else(unknown)?;
        let mut value = shown(&kept);
        if let Ok(event) = Event::decode(&kept.letter.record) {
            match std::str::from_utf8(&event.body) {
                Ok(text) => value["body"] = text.into(),
                Err(_) => value["body_base64"] = STANDARD.encode(&event.body).into(),
            }
        }
        Ok(value)
    }

    /// Gives dead letters up.
    pub(super) async fn discard(
        &self,
        request: RepublishRequest,
        caller: OperatorCaller,
    ) -> Result<Value, OperatorRefusal> {
        selected(&request)?;
        let (mut chosen, mut discarded) = (0, 0);
        for route in self.letter_routes(request.route.as_deref())? {
            if request.dry_run {
                let counted = self.shared.dead_letters.count(&route, &request.selection).await;
                chosen += counted.map_err(unreadable)?;
                continue;
            }
            self.shared.jobs.refuse_second_redrive(&route)?;
            let gone = self.shared.dead_letters.discard(&route, &request.selection).await;
            let gone = gone.map_err(unreadable)?;
            if gone > 0 {
                tracing::warn!(
                    route,
                    uid = caller.uid,
                    records = gone,
                    "an operator has discarded dead letters"
                );
            }
            (chosen, discarded) = (chosen + gone, discarded + gone);
        }
        Ok(json!({ "chosen": chosen, "discarded": discarded, "dry_run": request.dry_run }))
    }
}

/// Refuses a selection of everything that is not said to be meant.
pub(super) fn selected(request: &RepublishRequest) -> Result<(), OperatorRefusal> {
    match request.selection.is_all() && !request.all {
        false => Ok(()),
        true => Err(OperatorRefusal::new(
            RefusalReason::NothingSelected,
            "nothing is selected: say which (stream, kind, time, id, …), or that all are meant",
        )),
    }
}

pub(super) fn unreadable(error: LettersError) -> OperatorRefusal {
    disk(format!("the dead letters: {error}"))
}

fn parse_place(place: &str) -> Result<(String, u64), OperatorRefusal> {
    let parsed = place
        .rsplit_once('/')
        .and_then(|(route, number)| Some((route.to_owned(), number.parse().ok()?)));
    parsed.ok_or_else(|| {
        OperatorRefusal::new(
            RefusalReason::Malformed,
            format!("after: {place:?} is no place of a page"),
        )
    })
}

/// A dead letter without its body.
fn shown(kept: &KeptLetter) -> Value {
    let letter = &kept.letter;
    let mut value = json!({
        "number": kept.number,
        "route": letter.route,
        "reason": letter.reason,
        "text": letter.text,
        "at": Time(letter.at_ms).to_rfc3339(),
        "attempts": letter.attempts,
        "sequence": letter.sequence,
    });
    if let Ok(event) = Event::decode(&letter.record) {
        let provider = senders::numbered(event.provider).map(|sender| sender.provider());
        value["id"] = event.id.to_string().into();
        value["type"] = provider.map(|provider| event.type_(provider)).into();
        value["kind"] = event.kind.as_str().into();
        value["stream"] = event.key.as_str().into();
        value["endpoint"] = event.endpoint.as_str().into();
        value["time"] = event.time.to_rfc3339().into();
        value["recorded"] = event.recorded.to_rfc3339().into();
        value["body_bytes"] = event.body.len().into();
    }
    value
}
