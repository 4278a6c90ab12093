#!/usr/bin/env python3
"""Makes a known answer for transport keys (docs/wire.md) without a line of frejus or of the libraries it uses.

X25519, ML-KEM-768 and the ciphers are OpenSSL's (through the package `cryptography`, 48 or newer), the hashes Python's.
The encapsulation is random, so every run makes another answer: transport-keys.txt holds one of them. The expansion of
the seed (FIPS 203, algorithms 13 and 16) is here because OpenSSL keeps seeds and other libraries keep expanded keys; the
public key that it gives is compared with OpenSSL's.
"""

import hashlib
import hmac

from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

Q, N, K = 3329, 256, 3


def bit_reversed(n):
    return int(f"{n:07b}"[::-1], 2)


ZETAS = [pow(17, bit_reversed(n), Q) for n in range(128)]


def ntt(poly):
    poly, index, span = list(poly), 1, 128
    while span >= 2:
        for start in range(0, N, 2 * span):
            zeta, index = ZETAS[index], index + 1
            for at in range(start, start + span):
                other = zeta * poly[at + span] % Q
                poly[at + span] = (poly[at] - other) % Q
                poly[at] = (poly[at] + other) % Q
        span //= 2
    return poly


def multiply(one, other):
    product = [0] * N
    for n in range(128):
        gamma = pow(17, 2 * bit_reversed(n) + 1, Q)
        a, b, c, d = one[2 * n], one[2 * n + 1], other[2 * n], other[2 * n + 1]
        product[2 * n], product[2 * n + 1] = (a * c + b * d * gamma) % Q, (a * d + b * c) % Q
    return product


def add(one, other):
    return [(a + b) % Q for a, b in zip(one, other)]


def uniform(rho, column, row):
    stream, poly = hashlib.shake_128(rho + bytes([column, row])).digest(3 * 1024), []
    for at in range(0, len(stream), 3):
        low = stream[at] + 256 * (stream[at + 1] % 16)
        high = stream[at + 1] // 16 + 16 * stream[at + 2]
        poly += [value for value in (low, high) if value < Q]
    return poly[:N]


def small(sigma, nonce):
    stream = int.from_bytes(hashlib.shake_256(sigma + bytes([nonce])).digest(128), "little")
    bit = lambda n: stream >> n & 1
    return [(bit(4 * n) + bit(4 * n + 1) - bit(4 * n + 2) - bit(4 * n + 3)) % Q for n in range(N)]


def encode(poly):
    return sum(value << 12 * n for n, value in enumerate(poly)).to_bytes(384, "little")


def expand(seed):
    d, z = seed[:32], seed[32:]
    both = hashlib.sha3_512(d + bytes([K])).digest()
    rho, sigma = both[:32], both[32:]
    secret = [ntt(small(sigma, n)) for n in range(K)]
    public = []
    for row in range(K):
        total = ntt(small(sigma, K + row))
        for column in range(K):
            total = add(total, multiply(uniform(rho, column, row), secret[column]))
        public.append(total)
    key = b"".join(map(encode, public)) + rho
    return b"".join(map(encode, secret)) + key + hashlib.sha3_256(key).digest() + z, key


def hkdf(salt, secret, info):
    extracted = hmac.new(salt, secret, hashlib.sha256).digest()
    return hmac.new(extracted, info + b"\x01", hashlib.sha256).digest()


def x25519_public(secret):
    return secret.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)


DOMAIN = b"frejus/1 transport keys"
OFFER, ANSWER, CHACHA, AES = 16, 17, 1, 2

network = bytes(range(32))
offerer_node, offerer_key = b"\x0a" * 32, b"\x0b" * 32
answerer_node, answerer_key = b"\x14" * 32, b"\x15" * 32
offerer, answerer = b"\x31" * 32, b"\x32" * 32
seed = bytes(range(64))

ours, theirs = X25519PrivateKey.from_private_bytes(offerer), X25519PrivateKey.from_private_bytes(answerer)
kem = MLKEM768PrivateKey.from_seed_bytes(seed)
expanded, kem_public = expand(seed)
assert kem_public == kem.public_key().public_bytes_raw()
kem_secret, ciphertext = kem.public_key().encapsulate()
assert kem.decapsulate(ciphertext) == kem_secret
x25519_secret = ours.exchange(theirs.public_key())
assert x25519_secret == theirs.exchange(ours.public_key())

costs = [(CHACHA, 1020), (AES, 736)]
offer_index, answer_index = 0x80123401, 0x80654302
offer = bytes([1, OFFER]) + offer_index.to_bytes(4, "little") + x25519_public(ours) + kem_public
offer += bytes([len(costs)]) + b"".join(bytes([cipher]) + nanos.to_bytes(2, "little") for cipher, nanos in costs)
offer += bytes([0])
print(f"network = {network.hex()}")
print(f"offerer = {(offerer_node + offerer_key).hex()}")
print(f"answerer = {(answerer_node + answerer_key).hex()}")
print(f"offerer-x25519 = {offerer.hex()}")
print(f"answerer-x25519 = {answerer.hex()}")
print(f"kem-seed = {seed.hex()}")
print(f"kem-key = {expanded.hex()}")
print(f"offer = {offer.hex()}")
print(f"kem-secret = {kem_secret.hex()}")
print(f"x25519-secret = {x25519_secret.hex()}")
packet = bytes([0x45, 0, 0, 24]) + bytes(range(20))
for name, cipher, aead in (("chacha20-poly1305", CHACHA, ChaCha20Poly1305), ("aes-256-gcm", AES, AESGCM)):
    answer = bytes([1, ANSWER]) + offer_index.to_bytes(4, "little") + answer_index.to_bytes(4, "little")
    answer += bytes([cipher]) + x25519_public(theirs) + ciphertext
    said = b"".join(len(message).to_bytes(4, "big") + message for message in (offer, answer))
    parties = offerer_node + offerer_key + answerer_node + answerer_key
    transcript = hashlib.sha256(DOMAIN + b"\0" + network + parties + said).digest()
    keys = [
        hkdf(DOMAIN, kem_secret + x25519_secret, DOMAIN + bytes([0, cipher, direction]) + transcript)
        for direction in (0, 1)
    ]
    counter = (5).to_bytes(8, "little")
    header = bytes([4, 0, 0, 0]) + answer_index.to_bytes(4, "little") + counter
    message = header + aead(keys[0]).encrypt(bytes(4) + counter, packet, b"")
    print(f"{name}-answer = {answer.hex()}")
    print(f"{name}-transcript = {transcript.hex()}")
    print(f"{name}-to-answerer = {keys[0].hex()}")
    print(f"{name}-to-offerer = {keys[1].hex()}")
    print(f"{name}-packet-5-to-answerer = {message.hex()}")
