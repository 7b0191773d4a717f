"""
Authentication, all of it through a :mod:`twisted.cred` portal.

A method (RFC 1928, section 3) turns a conversation into credentials. The portal turns credentials into an
avatar, an :class:`~socksproxy.identity.ISOCKSUser`. What is known of a client before it speaks SOCKS (its TLS
certificate, the local user behind a Unix socket, the answer of its identd) are credentials, too.

The names in ``__all__`` are the public interface.
"""

from ..identity import ISOCKSUser
from ..negotiation import IExchange, IMethod, IWrapping, LogIn, Say
from ..values.auth import AuthSettings
from .cache import Remembering
from .chain import portal_of
from .checkers.threads import CheckThreads, ThreadedChecker
from .credentials import (
    Anonymous,
    Certificate,
    GSSAPIName,
    ICertificate,
    IGSSAPIName,
    IPeerCredentials,
    IUserid,
    Password,
    PeerCredentials,
    Userid,
)
from .directory import Directory, DirectoryRealm, GroupRecord, UserRecord
from .methods import NoAuthentication, UsernamePassword
from .users import Realm, User

__all__ = [
    "Anonymous",
    "AuthSettings",
    "Certificate",
    "CheckThreads",
    "Directory",
    "DirectoryRealm",
    "GSSAPIName",
    "GroupRecord",
    "ICertificate",
    "IExchange",
    "IGSSAPIName",
    "IMethod",
    "IPeerCredentials",
    "ISOCKSUser",
    "IUserid",
    "IWrapping",
    "LogIn",
    "NoAuthentication",
    "Password",
    "PeerCredentials",
    "Realm",
    "Remembering",
    "Say",
    "ThreadedChecker",
    "User",
    "UserRecord",
    "Userid",
    "UsernamePassword",
    "portal_of",
]
