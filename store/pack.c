#include "store/pack.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/uio.h>
#include <unistd.h>

#include "node/base/crypto.h"
#include "node/base/file.h"
#include "node/base/limits.h"
#include "node/base/scope.h"
#include "node/base/wire.h"

#define RECORD_MAGIC 0x434d5031u /* "CMP1" */
#define CHECKED_BYTES 56u        /* of the head; the other 8 are their checksum */
#define SCAN_WINDOW_BYTES (1u << 20)
#define NAME_DIGITS 16
#define BLOCK_BYTES 4096u /* of most file systems, and a multiple of that of others */

OWNED_DEFINE(owned_pack, struct store_pack, store_pack_unref)

/* ---- record heads ---- */

static void checksum(const uint8_t *head, uint8_t ret_check[8])
{
    struct id digest;
    crypto_sha256(head, CHECKED_BYTES, &digest);
    memcpy(ret_check, digest.b, 8);
}

void store_pack_encode_head(const struct store_record *record, uint8_t ret_head[STORE_RECORD_HEAD_BYTES])
{
    wire_store_u32(ret_head, RECORD_MAGIC);
    ret_head[4] = (uint8_t)record->type;
    ret_head[5] = (uint8_t)record->encoding;
    ret_head[6] = record->kind;
    ret_head[7] = record->is_ahead;
    memcpy(ret_head + 8, record->id.b, ID_BYTES);
    wire_store_u32(ret_head + 40, record->raw_bytes);
    wire_store_u32(ret_head + 44, record->stored_bytes);
    wire_store_u64(ret_head + 48, record->time_ms);
    checksum(ret_head, ret_head + CHECKED_BYTES);
}

size_t store_pack_max_bytes(enum store_piece_type type)
{
    return type == STORE_PIECE_ROOT ? STORE_ROOT_MAX_BYTES : LIMIT_CHUNK_BYTES;
}

bool store_pack_decode_head(const uint8_t head[STORE_RECORD_HEAD_BYTES], struct store_record *ret_record)
{
    uint8_t check[8];
    if (wire_load_u32(head) != RECORD_MAGIC)
        return false;
    checksum(head, check);
    if (memcmp(check, head + CHECKED_BYTES, sizeof check) != 0)
        return false;
    struct store_record record = {
        .type = head[4],
        .encoding = head[5],
        .kind = head[6],
        .is_ahead = head[7] == 1,
        .raw_bytes = wire_load_u32(head + 40),
        .stored_bytes = wire_load_u32(head + 44),
        .time_ms = wire_load_u64(head + 48),
    };
    memcpy(record.id.b, head + 8, ID_BYTES);
    if (record.type < STORE_PIECE_CHUNK || record.type > STORE_PIECE_ROOT || record.encoding > STORE_ZSTD)
        return false;
    if (record.raw_bytes > store_pack_max_bytes(record.type) || record.stored_bytes > record.raw_bytes)
        return false;
    *ret_record = record;
    return true;
}

/* ---- files ---- */

#define WRITE_OUT_BYTES (4u << 20)
#define ALLOCATE_BYTES (16u << 20)      /* ahead of what is written */
#define ALLOCATE_FOR_BYTES (256u << 10) /* by one call: little things do not make a pack larger */
#define ALLOCATE_OF_BYTES (256u << 20)  /* that are free */

static char *pack_path(const char *dir, uint64_t number)
{
    return file_path("%s/%016llx.pack", dir, (unsigned long long)number);
}

static int check_regular(struct store_pack *pack, struct err *err)
{
    struct stat st;
    if (fstat(pack->fd, &st) < 0)
        return err_errno(err, errno, "cannot look at pack '%s'", pack->path);
    if (!S_ISREG(st.st_mode))
        return err_set(err, ERR_CORRUPT, "pack '%s' is no regular file", pack->path);
    pack->size = (uint64_t)st.st_size;
    return 0;
}

enum store_pack_look store_pack_look(const char *dir, uint64_t number, uint64_t *ret_size_bytes)
{
    OWNED(owned_free) char *path = pack_path(dir, number);
    struct stat st;
    *ret_size_bytes = 0;
    int code = !path ? ENOMEM : lstat(path, &st) < 0 ? errno : 0;
    if (code == 0 && !S_ISREG(st.st_mode))
        return STORE_PACK_ODD;
    if (code == ENOENT || code == ENOTDIR)
        return STORE_PACK_ABSENT;
    *ret_size_bytes = code == 0 ? (uint64_t)st.st_size : UINT64_MAX; /* who knows; reading will tell */
    return STORE_PACK_FILE;
}

int store_pack_open(const char *dir, uint64_t number, bool create, struct store_pack **ret_pack, struct err *err)
{
    struct store_pack *made = calloc(1, sizeof *made);
    if (!made)
        return err_set(err, ERR_NOMEM, "no memory for a pack");
    pthread_mutex_init(&made->sync_lock, NULL);
    made->refs = 1;
    made->number = number;
    made->fd = -1;
    OWNED(owned_pack) struct store_pack *pack = made;
    pack->path = pack_path(dir, number);
    if (!pack->path)
        return err_set(err, ERR_NOMEM, "no memory for a path");
    int flags = O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | (create ? O_CREAT | O_EXCL : 0);
    pack->fd = open(pack->path, flags, 0600);
    if (pack->fd < 0 && (errno == ELOOP || errno == EISDIR || errno == ENXIO))
        return err_set(err, ERR_CORRUPT, "pack '%s' is no regular file", pack->path);
    if (pack->fd < 0)
        return err_errno(err, errno, "cannot open pack '%s'", pack->path);
    int status = check_regular(pack, err);
    if (status == 0 && create)
        status = file_sync_dir(dir, err);
    if (status < 0)
        return status;
    *ret_pack = STEAL(pack);
    return 0;
}

void store_pack_ref(struct store_pack *pack)
{
    atomic_fetch_add(&pack->refs, 1);
}

void store_pack_unref(struct store_pack *pack)
{
    if (!pack || atomic_fetch_sub(&pack->refs, 1) != 1)
        return;
    if (pack->fd >= 0)
        close(pack->fd);
    pthread_mutex_destroy(&pack->sync_lock);
    free(pack->path);
    free(pack);
}

/* `parts` are used up. */
static int write_parts(struct store_pack *pack, struct iovec *parts, size_t count, uint64_t offset, struct err *err)
{
    while (count > 0) {
        ssize_t put = pwritev(pack->fd, parts, (int)count, (off_t)offset);
        if (put < 0 && errno == EINTR)
            continue;
        if (put < 0)
            return err_errno(err, errno, "cannot write pack '%s'", pack->path);
        size_t done = (size_t)put;
        offset += done;
        for (; count > 0 && done >= parts->iov_len; parts++, count--)
            done -= parts->iov_len;
        if (done > 0) {
            parts->iov_base = (uint8_t *)parts->iov_base + done;
            parts->iov_len -= done;
        }
    }
    return 0;
}

/* On a disk that is nearly full the room is left to others, the index among them: ext4 keeps what it could allocate of
 * a range that was too long, which is all that there was. */
static bool has_room_ahead(const struct store_pack *pack)
{
    struct statvfs fs;
    return fstatvfs(pack->fd, &fs) == 0 && (uint64_t)fs.f_bavail * fs.f_frsize >= ALLOCATE_OF_BYTES;
}

/* Large writes into blocks that were allocated many at a time take a third less than where the file system looks for a
 * place for each. Where it cannot, they are looked for. */
static void allocate_ahead(struct store_pack *pack, uint64_t offset, uint64_t end)
{
    uint64_t ahead = pack->ahead;
    if (end <= ahead || end - offset < ALLOCATE_FOR_BYTES || !has_room_ahead(pack))
        return;
    uint64_t from = ahead > offset ? ahead : offset;
    int got = fallocate(pack->fd, FALLOC_FL_KEEP_SIZE, (off_t)from, (off_t)(end + ALLOCATE_BYTES - from));
    pack->ahead = got < 0 ? UINT64_MAX : end + ALLOCATE_BYTES;
}

void store_pack_trim(struct store_pack *pack)
{
    struct stat st;
    if (fstat(pack->fd, &st) == 0 && ftruncate(pack->fd, st.st_size) < 0)
        return; /* it is only room */
}

/* Let the disk begin with what fills another step, so that the next sync finds little left to wait for. Says nothing
 * about durability: errors are left for that sync to report (sync_file_range(2), without the waiting flags). */
static void write_out_early(const struct store_pack *pack, uint64_t offset, uint64_t end)
{
    uint64_t first = offset / WRITE_OUT_BYTES;
    uint64_t last = end / WRITE_OUT_BYTES;
    if (last > first)
        sync_file_range(pack->fd, (off_t)(first * WRITE_OUT_BYTES), (off_t)((last - first) * WRITE_OUT_BYTES),
                        SYNC_FILE_RANGE_WRITE);
}

int store_pack_write(struct store_pack *pack, const struct store_record *records, const void *const *bodies,
                     size_t count, uint64_t offset, struct err *err)
{
    uint8_t heads[STORE_PACK_WRITE_RECORDS][STORE_RECORD_HEAD_BYTES];
    struct iovec parts[2 * STORE_PACK_WRITE_RECORDS];
    uint64_t end = offset;
    for (size_t i = 0; i < count; i++) {
        store_pack_encode_head(&records[i], heads[i]);
        parts[2 * i] = (struct iovec){heads[i], STORE_RECORD_HEAD_BYTES};
        parts[2 * i + 1] = (struct iovec){(void *)(uintptr_t)bodies[i], records[i].stored_bytes};
        end += STORE_RECORD_HEAD_BYTES + records[i].stored_bytes;
    }
    allocate_ahead(pack, offset, end);
    int status = write_parts(pack, parts, 2 * count, offset, err);
    if (status < 0)
        store_pack_punch(pack, offset, end - offset, NULL);
    else
        write_out_early(pack, offset, end);
    return status;
}

static int sync_file(struct store_pack *pack, struct err *err)
{
    struct stat st;
    int status = file_sync(pack->fd, pack->path, err);
    if (status == 0 && (fstat(pack->fd, &st) < 0 || st.st_nlink == 0))
        return err_set(err, ERR_IO, "pack '%s' has been deleted", pack->path);
    return status;
}

int store_pack_sync(struct store_pack *pack, struct err *err)
{
    pthread_mutex_lock(&pack->sync_lock);
    int status;
    if (pack->failed)
        status = err_set(err, ERR_IO, "pack '%s' is retired: making it durable failed before", pack->path);
    else
        status = sync_file(pack, err);
    if (status < 0)
        pack->failed = true;
    pthread_mutex_unlock(&pack->sync_lock);
    return status;
}

int store_pack_read(struct store_pack *pack, uint64_t offset, void *ret_body, size_t stored_bytes, struct err *err)
{
    int status = file_pread_all(pack->fd, ret_body, stored_bytes, offset + STORE_RECORD_HEAD_BYTES, pack->path, err);
    if (status == ERR_IO) { /* of a regular file that is open: its disk cannot give these bytes back */
        err_wrap(err, "bytes are lost");
        return ERR_CORRUPT;
    }
    return status;
}

static bool punch(struct store_pack *pack, uint64_t offset, uint64_t end)
{
    int mode = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
    return fallocate(pack->fd, mode, (off_t)offset, (off_t)(end - offset)) == 0;
}

int store_pack_punch(struct store_pack *pack, uint64_t offset, uint64_t len_bytes, struct err *err)
{
    if (punch(pack, offset, offset + len_bytes))
        return 0;
    int code = errno;
    if (code == EIO) { /* to zero part of a block it has to be read: a bad one at an edge is not to keep the rest */
        uint64_t inner = (offset + BLOCK_BYTES - 1) / BLOCK_BYTES * BLOCK_BYTES;
        uint64_t inner_end = (offset + len_bytes) / BLOCK_BYTES * BLOCK_BYTES;
        if (inner >= inner_end || punch(pack, inner, inner_end))
            return 0;
    }
    if (code != EOPNOTSUPP && code != ENOSYS)
        return err_errno(err, code, "cannot free a range of pack '%s'", pack->path);
    static const uint8_t nothing[STORE_RECORD_HEAD_BYTES];
    return file_pwrite_all(pack->fd, nothing, sizeof nothing, offset, pack->path, err);
}

/* ---- scanning ---- */

struct scan {
    struct store_pack *pack;
    uint8_t *window; /* owned */
    uint64_t start;  /* of the window in the file */
    size_t filled;
    uint64_t end; /* of the file */
};

/* The bytes from `at` on, at least `want` of them unless the file ends; *ret_have says how many. */
static const uint8_t *look(struct scan *scan, uint64_t at, size_t want, size_t *ret_have, struct err *err)
{
    int fd = scan->pack->fd;
    const char *path = scan->pack->path;
    if (at < scan->start || at + want > scan->start + scan->filled) {
        uint64_t left = scan->end - at;
        size_t len = left < SCAN_WINDOW_BYTES ? (size_t)left : SCAN_WINDOW_BYTES;
        int status = file_pread_all(fd, scan->window, len, at, path, want < len ? NULL : err);
        if (status < 0 && want < len) { /* a bad sector may be in somebody's body, which nobody asked for */
            len = want;
            status = file_pread_all(fd, scan->window, len, at, path, err);
        }
        if (status < 0)
            return NULL;
        scan->start = at;
        scan->filled = len;
    }
    *ret_have = scan->filled - (size_t)(at - scan->start);
    return scan->window + (at - scan->start);
}

/* Behind a hole of the file, if `at` lies in one. */
static uint64_t skip_hole(struct scan *scan, uint64_t at)
{
    off_t data = lseek(scan->pack->fd, (off_t)at, SEEK_DATA);
    if (data < 0)
        return errno == ENXIO ? scan->end : at;
    return (uint64_t)data;
}

/* The next place at or after `at` where the magic stands, or the end. *ret_zeros: only zeros lie between. */
static int find_magic(struct scan *scan, uint64_t at, uint64_t *ret_at, bool *ret_zeros, struct err *err)
{
    uint8_t magic[4];
    wire_store_u32(magic, RECORD_MAGIC);
    *ret_zeros = true;
    for (;;) {
        at = skip_hole(scan, at);
        if (scan->end - at < sizeof magic)
            break;
        size_t have;
        const uint8_t *bytes = look(scan, at, sizeof magic, &have, err);
        if (!bytes)
            return -1;
        const uint8_t *hit = memmem(bytes, have, magic, sizeof magic);
        size_t passed = hit ? (size_t)(hit - bytes) : have - (sizeof magic - 1);
        for (size_t i = 0; i < passed && *ret_zeros; i++)
            *ret_zeros = bytes[i] == 0;
        at += passed;
        if (hit) {
            *ret_at = at;
            return 0;
        }
    }
    for (; at < scan->end && *ret_zeros; at++) {
        size_t have;
        const uint8_t *bytes = look(scan, at, 1, &have, err);
        if (!bytes)
            return -1;
        *ret_zeros = *bytes == 0;
    }
    *ret_at = scan->end;
    return 0;
}

/* 1 and the record that begins at `at` and lies within the file, 0 if none does. */
static int record_at(struct scan *scan, uint64_t at, struct store_record *ret_record, struct err *err)
{
    size_t have;
    *ret_record = (struct store_record){0};
    if (scan->end - at < STORE_RECORD_HEAD_BYTES)
        return 0;
    const uint8_t *head = look(scan, at, STORE_RECORD_HEAD_BYTES, &have, err);
    if (!head)
        return -1;
    return store_pack_decode_head(head, ret_record) &&
           scan->end - at - STORE_RECORD_HEAD_BYTES >= ret_record->stored_bytes;
}

/* The next place where a record begins, or the end; *ret_zeros: nothing but zeros lies between. */
static int next_record(struct scan *scan, uint64_t at, uint64_t *ret_at, bool *ret_zeros, struct err *err)
{
    struct store_record record;
    bool all_zeros = true;
    int is_record = 0;
    while (at < scan->end && is_record == 0) {
        size_t have;
        const uint8_t *byte = look(scan, at, 1, &have, err);
        if (!byte)
            return -1;
        all_zeros = all_zeros && *byte == 0;
        bool zeros;
        if (find_magic(scan, at + 1, &at, &zeros, err) < 0)
            return -1;
        all_zeros = all_zeros && zeros;
        is_record = at < scan->end ? record_at(scan, at, &record, err) : 1;
    }
    *ret_at = at;
    *ret_zeros = all_zeros;
    return is_record < 0 ? -1 : 0;
}

static int scan_records(struct scan *scan, store_pack_scan_cb cb, void *ctx, bool *ret_cut, struct err *err)
{
    uint64_t at = 0;
    while (at < scan->end) {
        struct store_record record;
        int is_record = record_at(scan, at, &record, err);
        if (is_record < 0)
            return err->code;
        int result = 0;
        uint64_t next = at + STORE_RECORD_HEAD_BYTES + record.stored_bytes;
        if (is_record) {
            result = cb(&record, at, next - at, ctx);
        } else {
            bool zeros;
            if (next_record(scan, at, &next, &zeros, err) < 0)
                return err->code;
            if (!zeros)
                result = cb(NULL, at, next - at, ctx);
            *ret_cut = !zeros && next == scan->end;
        }
        if (result != 0)
            return result;
        at = next;
    }
    return 0;
}

int store_pack_scan(struct store_pack *pack, store_pack_scan_cb cb, void *ctx, bool *ret_cut, struct err *err)
{
    OWNED(owned_free) uint8_t *window = malloc(SCAN_WINDOW_BYTES);
    struct stat st;
    if (!window)
        return err_set(err, ERR_NOMEM, "no memory to scan a pack");
    if (fstat(pack->fd, &st) < 0)
        return err_errno(err, errno, "cannot look at pack '%s'", pack->path);
    *ret_cut = false;
    struct scan scan = {.pack = pack, .window = window, .end = (uint64_t)st.st_size};
    struct err own = {0}; /* the helpers tell their code through it */
    return scan_records(&scan, cb, ctx, ret_cut, err ? err : &own);
}

/* ---- the directory ---- */

static bool parse_name(const char *name, uint64_t *ret_number)
{
    uint8_t bytes[NAME_DIGITS / 2];
    if (strlen(name) != NAME_DIGITS + 5 || strcmp(name + NAME_DIGITS, ".pack") != 0 ||
        !hex_decode(name, NAME_DIGITS, bytes, sizeof bytes))
        return false;
    *ret_number = wire_load_u64(bytes);
    return *ret_number > 0;
}

static void owned_dir(DIR **dir)
{
    if (*dir)
        closedir(*dir);
}

int store_pack_list(const char *dir, uint64_t **ret_numbers, size_t *ret_count, struct err *err)
{
    OWNED(owned_dir) DIR *open_dir = opendir(dir);
    if (!open_dir)
        return err_errno(err, errno, "cannot read directory '%s'", dir);
    OWNED(owned_free) uint64_t *numbers = NULL;
    size_t count = 0;
    size_t cap = 0;
    for (struct dirent *entry; (entry = readdir(open_dir));) {
        uint64_t number;
        if (!parse_name(entry->d_name, &number))
            continue;
        if (count == cap) {
            cap = cap ? cap * 2 : 64;
            uint64_t *grown = reallocarray(numbers, cap, sizeof *numbers);
            if (!grown)
                return err_set(err, ERR_NOMEM, "no memory for a list of packs");
            numbers = grown;
        }
        numbers[count++] = number;
    }
    *ret_numbers = STEAL(numbers);
    *ret_count = count;
    return 0;
}
