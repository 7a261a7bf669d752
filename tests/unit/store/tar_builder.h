/* Hostile tars, byte by byte, without libarchive: what no honest writer would write. And a scratch directory with a
 * canary beside the target, which no archive may touch. */
#pragma once

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "node/base/buf.h"
#include "node/base/file.h"
#include "node/base/scope.h"
#include "store/archive.h"

#define UNUSED_FN __attribute__((unused)) static

struct tar_head {
    const char *name;
    char type; /* 0: '0' */
    const char *link;
    unsigned mode; /* 0: 0644 */
    unsigned long long size;
    unsigned major, minor;
    bool bad_checksum;
};

UNUSED_FN void tar_put(struct buf *tar, const struct tar_head *head)
{
    char block[512] = {0};
    snprintf(block, 101, "%.100s", head->name);
    memcpy(block, head->name, strlen(head->name) < 100 ? strlen(head->name) : 100);
    snprintf(block + 100, 8, "%07o", head->mode ? head->mode : 0644);
    snprintf(block + 108, 8, "%07o", 0);
    snprintf(block + 116, 8, "%07o", 0);
    if (head->size < 1ull << 33) {
        snprintf(block + 124, 12, "%011llo", head->size);
    } else { /* GNU base-256 */
        block[124] = (char)0x80;
        for (int i = 0; i < 8; i++)
            block[128 + i] = (char)(head->size >> (56 - 8 * i));
    }
    snprintf(block + 136, 12, "%011o", 1700000000);
    block[156] = head->type ? head->type : '0';
    if (head->link)
        memcpy(block + 157, head->link, strlen(head->link) < 100 ? strlen(head->link) : 100);
    memcpy(block + 257, "ustar\00000", 8);
    snprintf(block + 329, 8, "%07o", head->major);
    snprintf(block + 337, 8, "%07o", head->minor);
    memset(block + 148, ' ', 8);
    unsigned sum = head->bad_checksum ? 1 : 0;
    for (int i = 0; i < 512; i++)
        sum += (unsigned char)block[i];
    snprintf(block + 148, 7, "%06o", sum);
    buf_add(tar, block, sizeof block);
}

UNUSED_FN void tar_data(struct buf *tar, const void *data, size_t len)
{
    static const char zeros[512];
    buf_add(tar, data, len);
    buf_add(tar, zeros, (512 - len % 512) % 512);
}

UNUSED_FN void tar_file(struct buf *tar, const char *name, const char *content)
{
    tar_put(tar, &(struct tar_head){.name = name, .size = strlen(content)});
    tar_data(tar, content, strlen(content));
}

UNUSED_FN void tar_bytes(struct buf *tar, const char *name, const void *data, size_t len)
{
    tar_put(tar, &(struct tar_head){.name = name, .size = len});
    tar_data(tar, data, len);
}

UNUSED_FN void tar_dir(struct buf *tar, const char *name, unsigned mode)
{
    tar_put(tar, &(struct tar_head){.name = name, .type = '5', .mode = mode});
}

UNUSED_FN void tar_symlink(struct buf *tar, const char *name, const char *target)
{
    tar_put(tar, &(struct tar_head){.name = name, .type = '2', .link = target, .mode = 0777});
}

UNUSED_FN void tar_hard_link(struct buf *tar, const char *name, const char *target)
{
    tar_put(tar, &(struct tar_head){.name = name, .type = '1', .link = target});
}

/* "LEN KEY=VALUE\n", where LEN counts itself. */
UNUSED_FN void pax_record(struct buf *records, const char *key, const void *value, size_t value_len)
{
    size_t body = strlen(key) + value_len + 3, total = body + 1;
    char digits[24];
    while ((size_t)snprintf(digits, sizeof digits, "%zu", total) + body != total)
        total++;
    buf_addf(records, "%zu %s=", total, key);
    buf_add(records, value, value_len);
    buf_add(records, "\n", 1);
}

UNUSED_FN void tar_pax_records(struct buf *tar, const struct buf *records)
{
    tar_put(tar, &(struct tar_head){.name = "PaxHeader/x", .type = 'x', .size = records->len});
    tar_data(tar, records->data, records->len);
}

/* A pax header with one record; the entry itself follows. */
UNUSED_FN void tar_pax(struct buf *tar, const char *key, const void *value, size_t value_len)
{
    OWNED(buf_release) struct buf records = BUF(4u << 20);
    pax_record(&records, key, value, value_len);
    tar_pax_records(tar, &records);
}

/* The head of a sparse file, GNU format 1.0; stored_len bytes of map and data follow. */
UNUSED_FN void tar_sparse(struct buf *tar, const char *name, const char *real_size, size_t stored_len)
{
    OWNED(buf_release) struct buf records = BUF(1000);
    pax_record(&records, "GNU.sparse.major", "1", 1);
    pax_record(&records, "GNU.sparse.minor", "0", 1);
    pax_record(&records, "GNU.sparse.name", name, strlen(name));
    pax_record(&records, "GNU.sparse.realsize", real_size, strlen(real_size));
    tar_pax_records(tar, &records);
    tar_put(tar, &(struct tar_head){.name = "GNUSparseFile.0/x", .size = stored_len});
}

UNUSED_FN void tar_long_name(struct buf *tar, const char *name, char type)
{
    tar_put(tar, &(struct tar_head){.name = "././@LongLink", .type = type, .size = strlen(name) + 1});
    tar_data(tar, name, strlen(name) + 1);
}

UNUSED_FN void tar_end(struct buf *tar)
{
    static const char zeros[1024];
    buf_add(tar, zeros, sizeof zeros);
}

/* ---- giving bytes to the code under test, a few at a time if wanted ---- */

struct feed {
    const uint8_t *data;
    size_t len;
    size_t at;
    size_t step; /* 0: as many as there is room for */
};

UNUSED_FN ssize_t feed_read(void *ctx, void *ret_data, size_t room, struct err *err)
{
    struct feed *feed = ctx;
    (void)err;
    size_t len = feed->len - feed->at;
    if (len > room)
        len = room;
    if (feed->step && len > feed->step)
        len = feed->step;
    if (len > 0)
        memcpy(ret_data, feed->data + feed->at, len);
    feed->at += len;
    return (ssize_t)len;
}

UNUSED_FN int collect(void *ctx, const void *data, size_t len, struct err *err)
{
    int status = buf_add(ctx, data, len);
    return status < 0 ? err_set(err, status, "test buffer full") : 0;
}

/* ---- a directory for one test ---- */

struct scratch {
    char dir[64];
    char target[80];
    char canary[80];
};

#define CANARY_TEXT "still singing"

UNUSED_FN void scratch_make(struct scratch *scratch)
{
    snprintf(scratch->dir, sizeof scratch->dir, "/tmp/cmig-archive-XXXXXX");
    if (!mkdtemp(scratch->dir))
        abort();
    snprintf(scratch->target, sizeof scratch->target, "%s/target", scratch->dir);
    snprintf(scratch->canary, sizeof scratch->canary, "%s/canary", scratch->dir);
    if (mkdir(scratch->canary, 0750) < 0)
        abort();
    char *file = file_path("%s/bird", scratch->canary);
    if (file_write_atomic(file, CANARY_TEXT, strlen(CANARY_TEXT), 0640, NULL) < 0)
        abort();
    free(file);
}

/* Nothing came into the canary's directory or beside it, and the bird is as it was. */
UNUSED_FN bool scratch_canary_is_well(const struct scratch *scratch)
{
    struct stat dir, file;
    OWNED(owned_free) char *path = file_path("%s/bird", scratch->canary);
    OWNED(buf_release) struct buf content = BUF(100);
    if (stat(scratch->canary, &dir) < 0 || stat(path, &file) < 0 || file_read(path, &content, NULL) < 0)
        return false;
    unsigned names = 0;
    DIR *listing = opendir(scratch->canary);
    for (struct dirent *entry; listing && (entry = readdir(listing));)
        names++;
    closedir(listing);
    return names == 3 && (dir.st_mode & 07777) == 0750 && (file.st_mode & 07777) == 0640 && file.st_nlink == 1 &&
           content.len == strlen(CANARY_TEXT) && memcmp(content.data, CANARY_TEXT, content.len) == 0;
}

UNUSED_FN void scratch_remove(struct scratch *scratch)
{
    file_remove_tree(scratch->dir, NULL);
}
