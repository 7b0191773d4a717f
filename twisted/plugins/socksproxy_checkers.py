"""
The types of ``--auth`` beside Twisted's own.

Every program that looks for plugins of ``--auth`` reads this file. So the file imports nothing of ours
before a checker is needed.
"""

from __future__ import annotations

from typing import Any

from twisted.cred.strcred import ICheckerFactory
from twisted.plugin import IPlugin
from zope.interface import implementer


@implementer(ICheckerFactory, IPlugin)
class CheckerFactory:
    """
    Makes the checkers of one type of ``--auth``. :mod:`socksproxy.auth.checkers` has a module of its name.

    :param auth_type: the type.
    :param credentials: the name of an interface in :mod:`socksproxy.auth.credentials`.
    :param argument: what may follow ``--auth TYPE:``.
    :param help_text: the explanation for ``--help-auth-type``.
    """

    def __init__(self, auth_type: str, credentials: str, argument: str, help_text: str) -> None:
        self.authType = auth_type
        self.authHelp = help_text
        self.argStringFormat = argument
        self._credentials = credentials

    @property
    def credentialInterfaces(self) -> tuple[Any, ...]:
        """See :class:`twisted.cred.strcred.ICheckerFactory`."""
        from socksproxy.auth import credentials

        return (getattr(credentials, self._credentials),)

    def generateChecker(self, argstring: str) -> Any:
        """See :meth:`twisted.cred.strcred.ICheckerFactory.generateChecker`."""
        from socksproxy.auth.checkers import make_checker

        return make_checker(self.authType, argstring)


htpasswd = CheckerFactory(
    "htpasswd",
    "IUsernamePassword",
    "Path of the file.",
    """
Usernames and passwords from a file in the format of Apache's htpasswd
program: a line NAME:HASH for each user, lines with # are comments.

The file is made and changed with either of these:

    socksproxy passwd FILE NAME
    htpasswd -B -C 12 FILE NAME

Hashes may be bcrypt ($2y$, $2b$, $2a$), argon2 ($argon2id$; the extra [argon2])
and yescrypt ($y$; where the system has it), which are best, sha512-crypt ($6$),
sha256-crypt ($5$) and apr1 ($apr1$). Lines with plain text, {SHA}, DES crypt
or anything else are left out, with a warning.

When the file changes it is read again, within a second of the next login; a
file that is half-written, empty or missing is not. It has to be readable for
the user that the proxy runs as, and should be for nobody else (chmod 640 or
600).

Needs the packages libpass and bcrypt: pip install 'twisted-socksproxy[htpasswd]'
""",
)

pam = CheckerFactory(
    "pam",
    "IUsernamePassword",
    "Name of the PAM service.",
    """
Usernames and passwords of a PAM service, such as the accounts of this machine
or those of a directory. SERVICE is the name of a file in /etc/pam.d. For the
accounts of a Debian system it may hold:

    auth     required  pam_unix.so nodelay
    account  required  pam_unix.so

Both are asked: "auth" whether the password is right, "account" whether the
account may be used; one that is locked or has expired is refused. Sessions are
not opened, and passwords are not changed.

The proxy runs the service's modules as its own user. pam_unix needs root, or
the group shadow on Debian, for other users than that one. Each check takes a
thread for as long as it lasts, and is given up a bit before --auth-timeout.

Needs the package python-pam: pip install 'twisted-socksproxy[pam]'
""",
)

gssapi = CheckerFactory(
    "gssapi",
    "IGSSAPIName",
    "[service=NAMES][:keytab=FILE][:protection=LEVEL][:realm=strip|keep]",
    """
Users are known by their Kerberos tickets (GSS-API, RFC 1961): a client shows one for the
service on this machine, and no password goes over the network.

  gssapi[:service=NAMES][:keytab=FILE][:protection=LEVEL][:realm=strip|keep]

service=rcmd,socks
    The services whose tickets are accepted, with commas between them. The default has
    rcmd, which curl and Dante ask for unless told otherwise, and socks.
keytab=FILE
    Has the keys of the services: of rcmd/proxy.example.org, say. The default is the
    system's, /etc/krb5.keytab or what KRB5_KTNAME says. It has to be readable for the
    user that the server runs as.
protection=integrity
    What all bytes after the login, and all datagrams, are protected against:
      none             nothing, whatever the client asks for. curl needs it: it knows
                       no protection, and goes away when it gets one.
      optional         as the client asks, nothing included.
      integrity        at least being changed on the way; confidentiality for clients
                       that ask for it. The default.
      confidentiality  being read, too.
realm=strip
    Users of this machine's own realm, as in krb5.conf, are known without it: bob, not
    bob@EXAMPLE.ORG; others are always known by the whole principal. With realm=keep,
    all are.

Needs the package gssapi: pip install 'twisted-socksproxy[gssapi]'
""",
)

tls = CheckerFactory(
    "tls",
    "ICertificate",
    "ca=FILE[:name=subject|email|dns|uri|san]",
    """
Who connects to a listener with TLS (--listen ssl:...) may show a certificate of one of the
authorities in FILE. A client that shows none can still be known in another way; with a certificate
that is not valid, or of somebody else, there is no connection.

ca=FILE: the certificates of the authorities, in PEM.
name=subject: the user's name is the common name of the certificate's subject; this is the default.
name=email, name=dns, name=uri: it is the certificate's alternative name of that kind.
name=san: it is the certificate's alternative name, of whichever of these three kinds.

A certificate with none or with several of what names the user is refused.
""",
)

peercred = CheckerFactory(
    "peercred",
    "IPeerCredentials",
    "[group=NAME]...",
    """
Who connects to a Unix socket (--listen unix:...) is the local user that the program runs as, says the
kernel (Linux). A user without a name is refused, and so is nobody, who may be anybody.

group=NAME: only members of this group; given several times, members of any of these.
""",
)

balancer = CheckerFactory(
    "balancer",
    "ICertifiedName",
    "(nothing)",
    """
Who comes through a balancer (--listen haproxy:...) is the user whose name stands in the TLS
certificate that the client has shown to the balancer: its common name. The balancer must ask for
certificates, verify them and tell the name. In HAProxy:

    bind :1443 ssl crt proxy.pem ca-file clients-ca.pem verify required
    server socks 192.0.2.1:1080 send-proxy-v2-ssl-cn

A client without such a name can still be known in another way. Name your balancers with
--proxy-from: who can reach the listener otherwise, can claim any name.
""",
)

ident = CheckerFactory(
    "ident",
    "IUserid",
    "[port=PORT][:timeout=SECONDS]",
    """
The userid of a SOCKS4 request counts if the identd (RFC 1413) of the client's machine tells the
same user. The client must reach the proxy directly, and its machine must have an identd that we
can reach. Whoever rules that machine chooses the name: this is for machines that you rule.

port=PORT: where the identd listens, if it is not 113.
timeout=SECONDS: how long its answer may take, 5 if not given.

A client whose identd is not reached, or does not know, is told 92; one with another userid, 93.
""",
)

helper = CheckerFactory(
    "helper",
    "IUsernamePassword",
    "command=PROGRAM [ARGUMENTS][:children=N][:concurrency=N][:timeout=SECONDS]",
    """
Usernames and passwords that a program checks: yours, or one of Squid's helpers for
"auth_param basic". The program reads a line with the name and the password, both escaped as in
URLs, and writes OK or ERR, or BH if it cannot tell. With OK user=NAME the user has another name.

command=PROGRAM ARGUMENTS: the path of the program. No shell reads it; a \\ quotes a colon.
children=N: the greatest number of its processes, 5 if not given.
concurrency=N: one process has so many questions at once. A number stands before each question, and
    before its answer. 0, if not given: one question at a time, without a number.
timeout=SECONDS: how long an answer may take, 10 if not given.

A client is refused where no answer comes; that counts as no wrong password.
""",
)
