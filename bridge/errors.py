"""What is raised; each error answers one question: can trying again help.

BridgeError
├── CannotStart          no: the operator must change something first; the process exits with 2
├── UnreadableRequest    no: the record goes to the dead-letter topic with this reason
├── OwnershipLost        yes, elsewhere: another process owns the partition now; drop its state, write nothing
├── NewerLayout          not by this release: a later one wrote the record; the operator must run that one again
├── LedgerUnavailable    yes: the transaction did not commit; drop the state, open the partition again
├── NotConfirmed         yes: the broker did not answer in time; the record may have been written, or may yet be
├── ClientDied           yes, by another process: a part of the Kafka client has ended by a bug, and this one must, too
└── CannotUnseal         no: the operator must give the key back that it was sealed with
"""


class BridgeError(Exception):
    """Base of all errors raised by the bridge itself."""


class CannotStart(BridgeError):
    """The process cannot begin its work; the message says what is wrong, where, and what to do next."""


class UnreadableRequest(BridgeError):
    """A record of the requests topic that can never become a job.

    Args:
        reason: a stable word for machines, one of `bridge.messages.DeadLetterReason`.
        detail: a sentence for people; holds no secret and at most a few hundred characters.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


class OwnershipLost(BridgeError):
    """A newer owner has fenced this one: nothing written from here can become visible any more."""


class NewerLayout(BridgeError):
    """A record in Kafka that a later release wrote in a way this one does not know."""


class LedgerUnavailable(BridgeError):
    """A transaction could not be committed, or the ledger not be read; what it held did not happen."""


class NotConfirmed(BridgeError):
    """A record that the broker did not confirm in time: whether it was written is not known."""


class ClientDied(BridgeError):
    """A part of the Kafka client has ended that nobody can start again: without it the process would do nothing."""


class CannotUnseal(BridgeError):
    """A secret of the registry cannot be decrypted: no key in force fits."""
