/*
 * An open file that a client hands over, on its way into a sink: read by jobs, in place of a body that the client would
 * read and send (docs/decisions/015-open-files-for-uploads.md). It is answered by events: "send", "progress" and
 * "result".
 */
#pragma once

#include "node/upload.h"

/* As upload_begin, which calls it where the request asks for this. */
void upload_file_begin(struct api_request *req, struct jobs jobs, const struct upload_sink *sink, void *ctx);

/* In a job: may its bytes be read here on behalf of whoever has opened it? *ret_size_bytes of it. ERR_INVALID if it is
 * no regular file or not open for reading. ERR_UNSUPPORTED if reading it depends on more than the descriptor, on who
 * reads or on another program: its owner has to read it. */
int upload_file_check(int fd, uint64_t *ret_size_bytes, struct err *err);
