#include "node/gateway/resp.h"

#include <ctype.h>
#include <errno.h>
#include <hiredis/read.h>
#include <hiredis/sds.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "node/base/limits.h"
#include "node/base/scope.h"

#define HEADER_MAX_BYTES 32                /* of "*<count>\r\n" and "$<length>\r\n" */
#define KEPT_BYTES (64u << 10)             /* of hiredis' buffer, between commands */
#define EXACT_INTEGER 100000000000000000.0 /* 10^17: "%.17g" writes no exponent below it */

/* Words are gathered as offsets, because their bytes move while more come; args is made of them at the end. */
struct word {
    size_t at, len;
};

struct resp_reader {
    redisReader *redis;    /* owned */
    struct buf bytes;      /* the words of one command, each with a NUL */
    struct word *words;    /* owned, word_cap of them */
    struct resp_arg *args; /* owned, word_cap of them */
    size_t count;
    size_t word_cap;
    int failed; /* the code that ended it, 0 before */
    char why[80];
};

OWNED_DEFINE(owned_resp_reader, struct resp_reader, resp_reader_free)

static void *refuse(struct resp_reader *reader, int code, const char *why)
{
    if (!reader->failed) {
        reader->failed = code;
        snprintf(reader->why, sizeof reader->why, "%s", why);
    }
    return NULL;
}

/* ---- what hiredis' reader calls: it keeps no objects, so anything but NULL will do ---- */

static bool make_words(struct resp_reader *reader, size_t count)
{
    if (count <= reader->word_cap)
        return true;
    size_t cap = reader->word_cap ? reader->word_cap : 8;
    while (cap < count)
        cap *= 2;
    struct word *words = realloc(reader->words, cap * sizeof *words);
    if (words)
        reader->words = words;
    struct resp_arg *args = words ? realloc(reader->args, cap * sizeof *args) : NULL;
    if (!args)
        return false;
    reader->args = args;
    reader->word_cap = cap;
    return true;
}

static bool add_word(struct resp_reader *reader, const char *data, size_t len)
{
    uint8_t *at = make_words(reader, reader->count + 1) ? buf_reserve(&reader->bytes, len + 1) : NULL;
    if (!at)
        return false;
    memcpy(at, data, len);
    at[len] = 0;
    reader->words[reader->count++] = (struct word){reader->bytes.len, len};
    reader->bytes.len += len + 1;
    return true;
}

static void *on_array(const redisReadTask *task, int count)
{
    struct resp_reader *reader = task->privdata;
    if (task->parent)
        return refuse(reader, ERR_PROTOCOL, "expected '$', got '*'");
    if (count < 0 || count > LIMIT_RESP_ARGS)
        return refuse(reader, ERR_PROTOCOL, "invalid multibulk length");
    return reader;
}

static void *on_string(const redisReadTask *task, char *data, size_t len)
{
    struct resp_reader *reader = task->privdata;
    if (task->type != REDIS_REPLY_STRING)
        return refuse(reader, ERR_PROTOCOL,
                      task->type == REDIS_REPLY_ERROR ? "expected '$', got '-'" : "expected '$', got '+'");
    if (!add_word(reader, data, len))
        return refuse(reader, reader->bytes.failed ? ERR_PROTOCOL : ERR_NOMEM, "too big mbulk count string");
    return reader;
}

static void *on_integer(const redisReadTask *task, long long value)
{
    (void)value;
    return refuse(task->privdata, ERR_PROTOCOL, "expected '$', got ':'");
}

static void *on_nil(const redisReadTask *task)
{
    /* hiredis reads "*-1" and "$-1" as the same thing. */
    return refuse(task->privdata, ERR_PROTOCOL, task->parent ? "invalid bulk length" : "invalid multibulk length");
}

static void on_free(void *object)
{
    (void)object;
}

static redisReplyObjectFunctions reader_functions = {on_string, on_array, on_integer, on_nil, on_free};

/* ---- reading ---- */

int resp_reader_new(struct resp_reader **ret_reader, struct err *err)
{
    OWNED(owned_resp_reader) struct resp_reader *reader = calloc(1, sizeof *reader);
    if (reader)
        reader->redis = redisReaderCreateWithFunctions(&reader_functions);
    if (!reader || !reader->redis)
        return err_set(err, ERR_NOMEM, "no memory for a client");
    reader->redis->privdata = reader;
    reader->redis->maxbuf = KEPT_BYTES;
    buf_init(&reader->bytes, LIMIT_RESP_COMMAND_BYTES);
    *ret_reader = STEAL(reader);
    return 0;
}

void resp_reader_free(struct resp_reader *reader)
{
    if (!reader)
        return;
    if (reader->redis)
        redisReaderFree(reader->redis);
    buf_release(&reader->bytes);
    free(reader->words);
    free(reader->args);
    free(reader);
}

int resp_feed(struct resp_reader *reader, const void *data, size_t len_bytes, struct err *err)
{
    if (reader->failed)
        return 0;
    if (redisReaderFeed(reader->redis, data, len_bytes) != REDIS_OK)
        return err_set(err, ERR_NOMEM, "no memory for %zu bytes of a client", len_bytes);
    return 0;
}

static size_t unread(const struct resp_reader *reader)
{
    return reader->redis->len - reader->redis->pos;
}

/* No array is under way: the next byte begins a command. */
static bool at_start(const struct resp_reader *reader)
{
    return reader->redis->ridx < 0;
}

bool resp_is_amid(const struct resp_reader *reader)
{
    return !at_start(reader) || unread(reader) > 0;
}

/* Is this what a browser or a TLS client would say first? Any page that a user looks at can have such a thing sent to
 * this port. RFC 9110 section 9 has the methods, RFC 8446 section 5.1 the record. */
static bool is_foreign(const char *line, size_t len)
{
    static const char *const openings[] = {"GET /", "POST ",    "HEAD /",   "PUT /",  "DELETE /", "PATCH /",
                                           "PRI *", "OPTIONS ", "CONNECT ", "TRACE ", "HOST:"};
    static const char version[] = " HTTP/1.";
    for (size_t i = 0; i < sizeof openings / sizeof *openings; i++) {
        size_t opening = strlen(openings[i]);
        if (len >= opening && strncasecmp(line, openings[i], opening) == 0)
            return true;
    }
    size_t tail = sizeof version; /* with the digit */
    if (len > tail && memcmp(line + len - tail, version, sizeof version - 1) == 0)
        return true;
    return len >= 2 && line[0] == 0x16 && line[1] == 0x03;
}

static int fail(struct resp_reader *reader, struct err *err)
{
    return err_set(err, reader->failed, "%s", reader->why);
}

static int refuse_now(struct resp_reader *reader, int code, const char *why, struct err *err)
{
    refuse(reader, code, why);
    return fail(reader, err);
}

static int split_line(struct resp_reader *reader, const char *line, size_t len, struct err *err)
{
    sds copy = sdsnewlen(line, len);
    int count = 0;
    sds *words = copy ? sdssplitargs(copy, &count) : NULL;
    sdsfree(copy);
    if (!words)
        return refuse_now(reader, ERR_PROTOCOL, "unbalanced quotes in request", err);
    bool added = true;
    for (int i = 0; i < count && added; i++)
        added = add_word(reader, words[i], sdslen(words[i]));
    sdsfreesplitres(words, count);
    return added ? 1 : refuse_now(reader, ERR_PROTOCOL, "too big inline request", err);
}

/* Drop what was taken from hiredis' buffer, which it does by itself for arrays only. */
static void discard(struct resp_reader *reader, size_t len)
{
    redisReader *redis = reader->redis;
    sdsrange(redis->buf, (int)(redis->pos + len), -1);
    redis->pos = 0;
    redis->len = sdslen(redis->buf);
}

/* One line of words, which ends with LF and perhaps a CR before it. */
static int next_inline(struct resp_reader *reader, struct err *err)
{
    const char *line = reader->redis->buf + reader->redis->pos;
    size_t len = unread(reader);
    const char *end = memchr(line, '\n', len);
    size_t whole = end ? (size_t)(end - line) : len;
    size_t line_len = whole > 0 && line[whole - 1] == '\r' ? whole - 1 : whole;
    if (is_foreign(line, line_len))
        return refuse_now(reader, ERR_DENIED, "speaks another protocol", err);
    if (line_len > LIMIT_RESP_INLINE_BYTES)
        return refuse_now(reader, ERR_PROTOCOL, "too big inline request", err);
    if (!end)
        return 0;
    int status = split_line(reader, line, line_len, err);
    discard(reader, whole + 1);
    return status;
}

/* What hiredis waits for is here only in part: would it ever be allowed to be whole? It has read the type of the item,
 * and reads the rest when all of it is there. */
static int check_unfinished(struct resp_reader *reader, struct err *err)
{
    const redisReader *redis = reader->redis;
    const char *at = redis->buf + redis->pos;
    size_t len = unread(reader);
    if (at_start(reader) || redis->rstack[redis->ridx].type < 0)
        return 0;
    bool array = redis->ridx == 0;
    if (redis->rstack[redis->ridx].type != (array ? REDIS_REPLY_ARRAY : REDIS_REPLY_STRING))
        return refuse_now(reader, ERR_PROTOCOL, "expected '$'", err);
    const char *end = memchr(at, '\r', len < HEADER_MAX_BYTES ? len : HEADER_MAX_BYTES);
    if (!end && len < HEADER_MAX_BYTES)
        return 0;
    if (!end)
        return refuse_now(reader, ERR_PROTOCOL, array ? "too big mbulk count string" : "too big bulk count string",
                          err);
    struct resp_arg number = {at, (size_t)(end - at)};
    int64_t value = 0;
    int64_t max = array ? LIMIT_RESP_ARGS : LIMIT_RESP_ARG_BYTES;
    bool valid = resp_parse_integer(&number, &value) && value >= 0 && value <= max;
    if (valid && (array || reader->bytes.len + (size_t)value < LIMIT_RESP_COMMAND_BYTES))
        return 0;
    return refuse_now(reader, ERR_PROTOCOL, array ? "invalid multibulk length" : "invalid bulk length", err);
}

/* hiredis says what it dislikes in its own words, and forgets its input; clients know the words of Redis. */
static int translate(struct resp_reader *reader, struct err *err)
{
    static const char odd_type[] = "Protocol error, got \"";
    if (reader->failed)
        return fail(reader, err);
    const char *text = reader->redis->errstr;
    if (reader->redis->err == REDIS_ERR_OOM)
        return refuse_now(reader, ERR_NOMEM, "no memory", err);
    if (strncmp(text, odd_type, sizeof odd_type - 1) == 0) {
        char why[] = "expected '$', got ' '";
        why[sizeof why - 3] = text[sizeof odd_type - 1];
        return refuse_now(reader, ERR_PROTOCOL, why, err);
    }
    bool array = strcasestr(text, "multi-bulk") != NULL;
    return refuse_now(reader, ERR_PROTOCOL, array ? "invalid multibulk length" : "invalid bulk length", err);
}

static int next_array(struct resp_reader *reader, struct err *err)
{
    void *reply = NULL;
    if (redisReaderGetReply(reader->redis, &reply) != REDIS_OK)
        return translate(reader, err);
    return reply ? 1 : check_unfinished(reader, err);
}

static int next_any(struct resp_reader *reader, struct err *err)
{
    if (reader->failed)
        return fail(reader, err);
    if (!at_start(reader))
        return next_array(reader, err);
    reader->count = 0;
    buf_clear(&reader->bytes);
    if (unread(reader) == 0)
        return 0;
    return reader->redis->buf[reader->redis->pos] == '*' ? next_array(reader, err) : next_inline(reader, err);
}

int resp_next(struct resp_reader *reader, struct resp_command *ret_command, struct err *err)
{
    int status;
    /* An empty line, or an array of nothing, is no command and has no answer. */
    do
        status = next_any(reader, err);
    while (status == 1 && reader->count == 0);
    if (status != 1)
        return status;
    for (size_t i = 0; i < reader->count; i++)
        reader->args[i] = (struct resp_arg){(char *)reader->bytes.data + reader->words[i].at, reader->words[i].len};
    *ret_command = (struct resp_command){reader->args, reader->count};
    return 1;
}

/* ---- writing ---- */

/* Decimal digits, most significant first; returns how many. */
static size_t format_integer(int64_t value, char text[24])
{
    char digits[24];
    size_t count = 0;
    uint64_t rest = value < 0 ? -(uint64_t)value : (uint64_t)value;
    do
        digits[count++] = (char)('0' + rest % 10);
    while ((rest /= 10) > 0);
    if (value < 0)
        digits[count++] = '-';
    for (size_t i = 0; i < count; i++)
        text[i] = digits[count - 1 - i];
    return count;
}

/* "<type><value>\r\n" */
static void put_header(struct buf *out, char type, int64_t value)
{
    char *at = (char *)buf_reserve(out, HEADER_MAX_BYTES);
    if (!at)
        return;
    at[0] = type;
    size_t len = 1 + format_integer(value, at + 1);
    memcpy(at + len, "\r\n", 2);
    out->len += len + 2;
}

void resp_put_array(struct buf *out, size_t count)
{
    put_header(out, '*', (int64_t)count);
}

void resp_put_integer(struct buf *out, int64_t value)
{
    put_header(out, ':', value);
}

void resp_put_bulk(struct buf *out, const void *data, size_t len_bytes)
{
    put_header(out, '$', (int64_t)len_bytes);
    uint8_t *at = buf_reserve(out, len_bytes + 2);
    if (!at)
        return;
    if (len_bytes > 0)
        memcpy(at, data, len_bytes);
    memcpy(at + len_bytes, "\r\n", 2);
    out->len += len_bytes + 2;
}

void resp_put_text(struct buf *out, const char *text)
{
    resp_put_bulk(out, text, strlen(text));
}

void resp_put_score(struct buf *out, double score)
{
    char text[RESP_SCORE_TEXT_SIZE];
    size_t len = resp_score_text(score, text);
    resp_put_bulk(out, text, len);
}

void resp_put_error(struct buf *out, const char *format, ...)
{
    char text[512];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    for (char *at = text; *at; at++)
        if (*at == '\r' || *at == '\n')
            *at = ' ';
    buf_add(out, "-", 1);
    buf_add_str(out, text);
    buf_add(out, "\r\n", 2);
}

/* ---- numbers ---- */

size_t resp_score_text(double score, char text[RESP_SCORE_TEXT_SIZE])
{
    if (fabs(score) < EXACT_INTEGER && score == trunc(score) && !(score == 0 && signbit(score)))
        return format_integer((int64_t)score, text);
    return (size_t)snprintf(text, RESP_SCORE_TEXT_SIZE, "%.17g", score);
}

bool resp_parse_integer(const struct resp_arg *arg, int64_t *ret_value)
{
    bool negative = arg->len > 0 && arg->data[0] == '-';
    const char *digits = arg->data + negative;
    size_t count = arg->len - negative;
    if (count == 0 || count > 19 || (digits[0] == '0' && (count > 1 || negative)))
        return false;
    uint64_t value = 0; /* 19 digits fit */
    for (size_t i = 0; i < count; i++) {
        if (digits[i] < '0' || digits[i] > '9')
            return false;
        value = value * 10 + (uint64_t)(digits[i] - '0');
    }
    if (value > (uint64_t)INT64_MAX + negative)
        return false;
    *ret_value = (int64_t)(negative ? -value : value);
    return true;
}

bool resp_parse_score(const struct resp_arg *arg, double *ret_score)
{
    char *end = NULL;
    if (arg->len == 0 || isspace((unsigned char)arg->data[0]))
        return false;
    errno = 0;
    double score = strtod(arg->data, &end);
    if (end != arg->data + arg->len || isnan(score))
        return false;
    if (errno == ERANGE && (isinf(score) || fpclassify(score) == FP_ZERO))
        return false;
    *ret_score = score;
    return true;
}
