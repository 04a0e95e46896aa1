"""The HTTP server: threaded, on a free loopback port; it can also drop connections."""

import logging
import socket
import threading

from moto.moto_server.werkzeug_app import MotoRequestHandler
from werkzeug.serving import make_server

from .errors import Drop


class QuietHandler(MotoRequestHandler):
    """Logs no requests; the double records them all."""

    def log(self, *arguments):
        pass


class Server:
    """Serves one function that maps WSGI environments to replies."""

    def __init__(self, answer):
        self.answer = answer
        logging.getLogger("werkzeug").setLevel(logging.ERROR)
        self.server = make_server(
            "127.0.0.1", 0, self.application, threaded=True, request_handler=QuietHandler
        )
        self.server.daemon_threads = True
        self.server.block_on_close = False
        self.port = self.server.server_port
        self.thread = threading.Thread(
            target=self.server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True
        )
        self.thread.start()

    def application(self, environ, start_response):
        try:
            reply = self.answer(environ)
        except Drop:
            connection = environ["werkzeug.socket"]
            connection.shutdown(socket.SHUT_RDWR)
            raise ConnectionResetError("dropped on purpose") from None
        headers = [
            (name, str(value))
            for name, value in reply.headers.items()
            if name.lower() not in ("connection", "date", "server")
        ]
        if "content-length" not in {name.lower() for name, _ in headers} and reply.status not in (
            204,
            304,
        ):
            headers.append(("content-length", str(len(reply.body))))
        start_response(f"{reply.status} {'OK' if reply.status < 300 else 'Error'}", headers)
        return [reply.body]

    def close(self):
        self.server.shutdown()
        self.server.server_close()
        self.thread.join(5)
