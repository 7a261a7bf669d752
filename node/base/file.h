/*
 * Files: whole reads and writes that survive a power cut, directories, and walks that no link can lead astray.
 *
 * 1. file_write_atomic leaves the old content or the new one, never a mixture, and is durable when it returns 0.
 * 2. A failed fsync is reported and never repeated: the kernel marks the pages clean all the same.
 * 3. Every descriptor made here is close-on-exec.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "node/base/buf.h"
#include "node/base/err.h"

/* Append the whole of `path` to buf; ERR_LIMIT if it does not fit buf->max, ERR_NOTFOUND if there is none. */
int file_read(const char *path, struct buf *buf, struct err *err);
/* Write a new file beside `path`, sync it, rename it over `path` and sync the directory. */
int file_write_atomic(const char *path, const void *data, size_t len_bytes, mode_t mode, struct err *err);

/* Write or read exactly len_bytes at offset, through EINTR and short counts. A read that meets the end of the file
 * is ERR_CORRUPT. `name` is for the message. */
int file_pwrite_all(int fd, const void *data, size_t len_bytes, uint64_t offset, const char *name, struct err *err);
int file_pread_all(int fd, void *ret_data, size_t len_bytes, uint64_t offset, const char *name, struct err *err);
/* Write all at the present position; for pipes and sockets too. */
int file_write_all(int fd, const void *data, size_t len_bytes, const char *name, struct err *err);

int file_sync(int fd, const char *name, struct err *err);
/* Make the entries of a directory durable. */
int file_sync_dir(const char *path, struct err *err);

/* Like mkdir -p; new directories get `mode`. */
int file_make_dirs(const char *path, mode_t mode, struct err *err);
bool file_exists(const char *path);
/* Remove a tree beneath and including `path`, without following links. What is not there is fine; a mount point, also
 * one of the same file system, is ERR_BUSY and untouched. */
int file_remove_tree(const char *path, struct err *err);
/* The same for the entry `name` (no slash) of a directory. */
int file_remove_tree_at(int dir_fd, const char *name, struct err *err);
/* "a/b" from printf parts, allocated; NULL when out of memory. */
char *file_path(const char *format, ...) __attribute__((format(printf, 1, 2)));
