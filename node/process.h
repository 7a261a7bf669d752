/*
 * The daemon as a process: its limits, its signals, its log, and what it is given besides the configuration.
 */
#pragma once

#include "node/node.h"

/* Before libuv is used and any file is made: umask, limits, ignored signals, the size of the thread pool, the log. */
void process_prepare(const struct config *config);

/* Run the loop until the node has ended. SIGINT and SIGTERM stop it, a second one ends the process at once. Jobs that
 * are under way some seconds after the node has closed are left as they are, and the process ends. */
void process_run(struct node *node);

/* Give back to the kernel what of the heap is free; some MiB are kept until then, for the next transfer. From any
 * thread. */
void process_trim_heap(void);

/* Does standard error lead to the journal, as `stream` ($JOURNAL_STREAM, "device:inode", may be NULL) says? */
bool process_logs_to_journal(const char *stream);

/* The text that proves that this node was invited: of a file, else of $CMIG_TOKEN (which children then do not see any
 * more), else *ret_token is NULL. Allocated. `path` may be NULL. */
int process_read_token(const char *path, char **ret_token, struct err *err);

/* "90", "90s", "15m", "2h", "7d" in seconds; false for anything else, 0, or more than max_s. */
bool process_parse_duration(const char *text, uint64_t max_s, uint64_t *ret_seconds);
