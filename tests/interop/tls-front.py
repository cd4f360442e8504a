"""TLS in front of a plain server: tls-front.py CERT KEY HOST:PORT.

Listens on port 443 of a random loopback address, prints that address, copies bytes both ways.
"""

import asyncio
import random
import ssl
import sys


async def copy(reader, writer):
    try:
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
    except (ConnectionError, ssl.SSLError):
        pass
    finally:
        try:
            writer.close()
        except (ConnectionError, RuntimeError):
            pass


async def main():
    certificate, key, target = sys.argv[1:4]
    host, port = target.rsplit(":", 1)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)

    async def serve(reader, writer):
        try:
            up = await asyncio.open_connection(host, int(port))
        except OSError:
            writer.close()
            return
        await asyncio.gather(copy(reader, up[1]), copy(up[0], writer))

    for _ in range(20):
        address = f"127.{random.randint(1, 254)}.{random.randint(0, 254)}.{random.randint(2, 254)}"
        try:
            server = await asyncio.start_server(serve, address, 443, ssl=context)
        except OSError:
            continue
        print(address, flush=True)
        await server.serve_forever()
    sys.exit("no loopback address has port 443 free")


asyncio.run(main())
