//! What became of a batch, once the broker has answered for all of it.
//!
//! lapin attaches a returned message to whichever confirm resolves next, so of one confirm nothing follows. Of all the
//! confirms of a batch it does: RabbitMQ sends a return before the confirm of the same message, and nothing else is in
//! flight on the channel, so every return of the batch is attached to one of its confirms. Which message it was, its
//! `sequence` header says.

use std::collections::BTreeSet;

/// The broker's own word on one message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BatchAnswer {
    Ack,
    Nack,
    /// The channel has no confirms: nothing is known.
    None,
}

/// What became of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum MessageFate {
    Delivered,
    /// No queue has it.
    Returned,
    /// A queue refused it, and others may have it.
    Nacked,
}

/// The answers contradict what was sent: nothing of the batch is known.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Contradiction {
    #[error("the channel does not confirm")]
    Unconfirmed,
    #[error("a message came back that was not sent")]
    Stranger,
}

/// What became of the messages `sequences`, by the `answers` to each and the sequences that were `returned` in any
/// order.
pub(super) fn fates(
    sequences: &[u64],
    answers: &[BatchAnswer],
    returned: &BTreeSet<u64>,
) -> Result<Vec<MessageFate>, Contradiction> {
    debug_assert_eq!(sequences.len(), answers.len());
    let mut back = 0;
    let fates = sequences
        .iter()
        .zip(answers)
        .map(|(sequence, answer)| {
            let came_back = returned.contains(sequence);
            back += usize::from(came_back);
            match answer {
                BatchAnswer::None => Err(Contradiction::Unconfirmed),
                BatchAnswer::Nack => Ok(MessageFate::Nacked),
                BatchAnswer::Ack if came_back => Ok(MessageFate::Returned),
                BatchAnswer::Ack => Ok(MessageFate::Delivered),
            }
        })
        .collect::<Result<_, _>>()?;
    if back < returned.len() {
        return Err(Contradiction::Stranger);
    }
    Ok(fates)
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_answer_counts_for_its_message_and_a_return_for_its_sequence() {
        use BatchAnswer::{Ack, Nack};
        let sequences = [12, 10, 13, 11];
        let rows = [
            ([Ack; 4], vec![], [MessageFate::Delivered; 4]),
            (
                [Ack; 4],
                vec![11, 13],
                [
                    MessageFate::Delivered,
                    MessageFate::Delivered,
                    MessageFate::Returned,
                    MessageFate::Returned,
                ],
            ),
            (
                [Ack, Nack, Ack, Nack],
                vec![11],
                [
                    MessageFate::Delivered,
                    MessageFate::Nacked,
                    MessageFate::Delivered,
                    MessageFate::Nacked,
                ],
            ),
        ];
        for (answers, returned, expected) in rows {
            let found = fates(&sequences, &answers, &returned.into_iter().collect()).unwrap();
            assert_eq!(found, expected, "{answers:?}");
        }
    }

    #[test]
    fn without_confirms_or_with_a_strangers_return_nothing_is_settled() {
        let unconfirmed = fates(&[1, 2], &[BatchAnswer::Ack, BatchAnswer::None], &BTreeSet::new());
        assert_eq!(unconfirmed, Err(Contradiction::Unconfirmed));
        let stranger = fates(&[1, 2], &[BatchAnswer::Ack; 2], &BTreeSet::from([3]));
        assert_eq!(stranger, Err(Contradiction::Stranger));
    }

    proptest! {
        /// The broker answers in an order of its own, each return before the confirm of its message; the client hands
        /// the oldest return to whichever confirm comes next.
        #[test]
        fn returns_that_come_with_the_wrong_confirms_are_settled_right(
            sent in proptest::collection::vec((0_u8..3, any::<u32>()), 1..40),
        ) {
            let sequences: Vec<u64> = (1..=sent.len() as u64).collect();
            let mut order: Vec<usize> = (0..sent.len()).collect();
            order.sort_by_key(|index| sent[*index].1);
            let mut waiting = VecDeque::new();
            let mut answers = vec![BatchAnswer::None; sent.len()];
            let mut returned = BTreeSet::new();
            // Returns come as early as they may.
            waiting.extend((0..sent.len()).filter(|index| sent[*index].0 == 1).map(|index| sequences[index]));
            for index in order {
                answers[index] = if sent[index].0 == 2 { BatchAnswer::Nack } else { BatchAnswer::Ack };
                returned.extend(waiting.pop_front());
            }
            let expected: Vec<MessageFate> = sent
                .iter()
                .map(|(fate, _)| [MessageFate::Delivered, MessageFate::Returned, MessageFate::Nacked][usize::from(*fate)])
                .collect();
            prop_assert_eq!(fates(&sequences, &answers, &returned).unwrap(), expected);
        }
    }
}
