"""A mail server for the test: takes mail as told, and writes each as one line of JSON.

Arguments: mode (insecure, starttls, tls), certificate, key, user, password.
"""

import asyncio
import json
import logging
import ssl
import sys
import warnings

from aiosmtpd.smtp import SMTP, AuthResult, LoginPassword

# It has opinions about how a mail server is to be set up, which are none of the test's.
warnings.simplefilter("ignore")
logging.disable(logging.CRITICAL)

mode, certificate, key, user, password = sys.argv[1:]


class Handler:
    async def handle_DATA(self, server, session, envelope):
        mail = {
            "from": envelope.mail_from,
            "to": envelope.rcpt_tos,
            "data": envelope.content.decode("utf-8"),
            "tls": session.ssl is not None or mode == "tls",
            "user": session.auth_data.decode() if session.auth_data else None,
        }
        print(json.dumps(mail), flush=True)
        return "250 taken"


def authenticate(server, session, envelope, mechanism, data):
    if not isinstance(data, LoginPassword):
        return AuthResult(success=False, handled=False)
    good = data.login == user.encode() and data.password == password.encode()
    if not good:
        return AuthResult(success=False, handled=False)
    return AuthResult(success=True, auth_data=data.login)


def protocol():
    context = None
    if mode == "starttls":
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(certificate, key)
    return SMTP(
        Handler(),
        tls_context=context,
        require_starttls=mode == "starttls",
        authenticator=authenticate,
        auth_required=bool(user),
        auth_require_tls=mode == "starttls",
        enable_SMTPUTF8=True,
    )


async def main():
    context = None
    if mode == "tls":
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(certificate, key)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(protocol, "127.0.0.1", 0, ssl=context)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


asyncio.run(main())
