//! Slots that come back by themselves.
//!
//! An owner that counts things held by others (sessions, handshakes, dials) issues a [`Ticket`] for each. When the
//! ticket is dropped, whether its holder returned, was cancelled or panicked, its value is back in the owner's
//! [`Returns`]. The room for that message is taken when the ticket is issued, so that giving back can neither
//! fail nor wait, and the number of tickets is bounded by the same number.

use std::ops::{Deref, DerefMut};

use tokio::sync::mpsc;

/// Issues tickets.
#[derive(Debug)]
pub struct TicketOffice<T> {
    /// None: the office has no tickets at all.
    returns: Option<mpsc::Sender<T>>,
}

/// Where dropped tickets arrive, in the order in which they were dropped.
#[derive(Debug)]
pub struct Returns<T>(mpsc::Receiver<T>);

/// One slot. Its value can be changed while it is held and is what the owner gets back.
#[derive(Debug)]
pub struct Ticket<T> {
    value: Option<T>,
    permit: Option<mpsc::OwnedPermit<T>>,
}

/// An office for at most `most` tickets at a time.
pub fn tickets<T>(most: usize) -> (TicketOffice<T>, Returns<T>) {
    // A channel has room for one at least; an office that may issue none has no use for it.
    let (tx, rx) = mpsc::channel(most.max(1));
    (TicketOffice { returns: (most > 0).then_some(tx) }, Returns(rx))
}

impl<T> TicketOffice<T> {
    /// A ticket for `value`; `None` when all are out.
    ///
    /// A slot is free again once its return was received, not merely dropped: the owner has then counted it.
    pub fn issue(&self, value: T) -> Option<Ticket<T>> {
        let permit = self.returns.clone()?.try_reserve_owned().ok()?;
        Some(Ticket { value: Some(value), permit: Some(permit) })
    }
}

impl<T> Returns<T> {
    /// The next ticket that came back. Pending while none has: the owner keeps the office, so this never ends.
    pub async fn next(&mut self) -> T {
        match self.0.recv().await {
            Some(value) => value,
            None => std::future::pending().await,
        }
    }

    /// The next ticket that has come back already.
    pub fn try_next(&mut self) -> Option<T> {
        self.0.try_recv().ok()
    }
}

impl<T> Deref for Ticket<T> {
    type Target = T;
    fn deref(&self) -> &T {
        self.value.as_ref().expect("a ticket holds its value until it is dropped")
    }
}

impl<T> DerefMut for Ticket<T> {
    fn deref_mut(&mut self) -> &mut T {
        self.value.as_mut().expect("a ticket holds its value until it is dropped")
    }
}

impl<T> Drop for Ticket<T> {
    fn drop(&mut self) {
        if let (Some(value), Some(permit)) = (self.value.take(), self.permit.take()) {
            permit.send(value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tickets_are_bounded_and_come_back_however_their_holder_ends() {
        let (office, mut returns) = tickets(2);
        let mut first = office.issue(1).unwrap();
        let second = office.issue(2).unwrap();
        assert!(office.issue(3).is_none(), "bounded");
        *first = 10;
        drop(first);
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(move || {
            let _held = second;
            panic!("holder");
        }));
        assert!(panicked.is_err());
        assert!(office.issue(3).is_none(), "a slot is free only once its return was counted");
        assert_eq!((returns.try_next(), returns.try_next(), returns.try_next()), (Some(10), Some(2), None));
        assert!(office.issue(3).is_some());
    }

    #[test]
    fn an_office_without_tickets_issues_none() {
        assert!(tickets::<u8>(0).0.issue(1).is_none());
    }
}
