/*
 * Hostile bytes to a session, as a stream: first as they are (a stranger), then sealed with the keys of an open session
 * (a member). Each record of the input is a u8 length and a frame's plaintext; the first byte chooses: 1 a member,
 * 2 both have AES.
 */
#include <stdlib.h>
#include <string.h>

#include "node/base/crypto.h"
#include "node/base/wire.h"
#include "transfer/noise.h"
#include "transfer/transfer.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int accept_all(void *ctx, const uint8_t remote_static[32], const void *payload, size_t payload_bytes,
                      struct id *ret_peer, struct err *err)
{
    (void)ctx;
    (void)payload;
    (void)payload_bytes;
    (void)err;
    memcpy(ret_peer->b, remote_static, 32);
    return 0;
}

static int read_all(void *ctx, uint8_t type, const uint8_t *data, size_t len, struct err *err)
{
    (void)err;
    uint64_t *sum = ctx;
    *sum += type;
    for (size_t i = 0; i < len; i++)
        *sum += data[i];
    return 0;
}

static struct session *new_session(bool dialer, bool has_aes, uint64_t *sum)
{
    uint8_t secret[32];
    memset(secret, dialer ? 1 : 2, sizeof secret);
    struct session_config config = {.dialer = dialer,
                                    .static_secret = secret,
                                    .has_aes = has_aes,
                                    .verify = accept_all,
                                    .on_message = read_all,
                                    .ctx = sum};
    struct session *session = NULL;
    return session_new(&config, 0, &session, NULL) < 0 ? NULL : session;
}

/* A frame of these bytes to the session. */
static int put(struct session *session, const uint8_t *body, size_t len)
{
    uint8_t *frame = malloc(2 + len);
    wire_store_u16(frame, (uint16_t)len);
    memcpy(frame + 2, body, len);
    int status = session_input(session, 0, frame, 2 + len, NULL);
    free(frame);
    return status;
}

static void drain(struct session *session)
{
    const uint8_t *data;
    size_t len;
    while (session_output(session, &data, &len))
        session_sent(session, 0, len);
}

static void as_stranger(const uint8_t *data, size_t size, bool has_aes)
{
    uint64_t sum = 0;
    for (unsigned dialer = 0; dialer < 2; dialer++) {
        struct session *session = new_session(dialer, has_aes, &sum);
        uint8_t *copy = malloc(size + 1);
        memcpy(copy, data, size);
        session_input(session, 0, copy, size / 3, NULL);
        session_input(session, 0, copy + size / 3, size - size / 3, NULL);
        session_input_end(session, NULL);
        free(copy);
        session_free(session);
    }
}

/* A dialer made of bare Noise, which can seal what no session would. */
static struct session *join_by_hand(bool aes, uint64_t *sum, struct noise_cipher *ret_send)
{
    struct session *listener = new_session(false, aes, sum);
    uint8_t secret[32] = {1};
    uint8_t prologue[6 + ID_BYTES] = "cmig/2";
    struct noise_config config = {.pattern = NOISE_XX,
                                  .initiator = true,
                                  .prologue = prologue,
                                  .prologue_bytes = sizeof prologue,
                                  .static_secret = secret};
    OWNED(owned_noise) struct noise *noise = NULL;
    OWNED(buf_release) struct buf first = BUF(4096);
    OWNED(buf_release) struct buf third = BUF(4096);
    OWNED(buf_release) struct buf payload = BUF(4096);
    struct noise_cipher receive = {0};
    const uint8_t *reply;
    size_t reply_len;
    if (noise_new(&config, &noise, NULL) < 0 || noise_write(noise, NULL, 0, &first, NULL) < 0 ||
        put(listener, first.data, first.len) < 0 || !session_output(listener, &reply, &reply_len) ||
        noise_read(noise, reply + 2, reply_len - 2, &payload, NULL) < 0 ||
        noise_write(noise, aes ? "\1" : "", 1, &third, NULL) < 0 || put(listener, third.data, third.len) < 0 ||
        noise_split(noise, aes ? CRYPTO_AES256_GCM : CRYPTO_CHACHA20_POLY1305, ret_send, &receive, NULL) < 0)
        abort();
    noise_cipher_release(&receive);
    return listener;
}

static void as_member(const uint8_t *data, size_t size, bool aes)
{
    uint64_t sum = 0;
    struct noise_cipher send = {0};
    struct session *listener = join_by_hand(aes, &sum, &send);
    while (size > 1 && session_state(listener) == SESSION_OPEN) {
        size_t len = data[0] < size - 1 ? data[0] : size - 1;
        uint8_t sealed[255 + NOISE_TAG_BYTES];
        noise_cipher_seal(&send, NULL, 0, data + 1, len, sealed, NULL);
        put(listener, sealed, len + NOISE_TAG_BYTES);
        drain(listener);
        data += 1 + len;
        size -= 1 + len;
    }
    noise_cipher_release(&send);
    session_free(listener);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (crypto_init(NULL) < 0)
        abort();
    if (size == 0)
        return 0;
    if (data[0] & 1)
        as_member(data + 1, size - 1, data[0] & 2);
    else
        as_stranger(data + 1, size - 1, data[0] & 2);
    return 0;
}
