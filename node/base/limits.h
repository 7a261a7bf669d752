/*
 * Every maximum that a peer, a file or a user can run into, with the arithmetic beside the constant.
 *
 * A table, queue or buffer that grows by outside wish takes its bound from here. Raising one costs memory; the product
 * says how much.
 */
#pragma once

/* ---- datagrams and the DHT ---- */
#define LIMIT_DATAGRAM_BYTES 1232               /* IPv6 minimum MTU 1280 less 40 (IPv6) and 8 (UDP): never fragmented */
#define LIMIT_DATAGRAM_PEERS 4096               /* cached pair keys; 4096 x ~460 bytes = 1.9 MiB */
#define LIMIT_DATAGRAM_RECENT_BYTES (32u << 10) /* sent of late, in case the receiver asks who we are */

#define LIMIT_DHT_RECORD_BYTES 715 /* 203 and 512 of data, docs/protocol-dht.md */
#define LIMIT_DHT_RECORDS                                                                                              \
    (1u << 18) /* held for all; x ~320 B in memory without data, 80 MiB; more if so configured                         \
                */
#define LIMIT_DHT_RECORDS_PER_KEY 16384             /* on one holder, the others go to shards: x ~320 B = 5 MiB */
#define LIMIT_DHT_PUBLISHED (LIMIT_DHT_RECORDS / 2) /* of our own */
#define LIMIT_DHT_COLLECT 262144                    /* records of one whole set, shards included */
#define LIMIT_DHT_WATCHES 4096                      /* of our own; x ~3.2 KiB = 13 MiB */
#define LIMIT_DHT_WATCHERS 16384                    /* others' here; x ~110 B, and their keys: 6 MiB */
#define LIMIT_DHT_WATCHERS_PER_KEY 256
#define LIMIT_DHT_CHANGE_BYTES (4u << 20) /* changes that wait for slow watchers */
#define LIMIT_DHT_NOTIFIES 512            /* not answered yet; of LIMIT_DHT_PENDING */
#define LIMIT_DHT_NOTIFIES_PER_SOURCE 32  /* of one node, when more than half of those are in use */
#define LIMIT_DHT_PENDING 1024            /* requests of ours x (180 B + 1100 B to repeat them) = 1.3 MiB */
#define LIMIT_DHT_REQUESTS 256            /* reads under way x ~15 KiB, and 770 B a record found */
#define LIMIT_DHT_GET_RECORDS 1024
#define LIMIT_DHT_BOOK                                                                                                 \
    (1u << 24)                 /* contacts; x ~100 B. One node's tables have at most 256 x 24, a simulator's many      \
                                */
#define LIMIT_DHT_PARCELS 1024 /* records on their way to their holders x ~700 B */
#define LIMIT_DHT_LANES 1024   /* nodes that they go to x ~800 B */
#define LIMIT_DHT_SEEDS 16
#define LIMIT_DHT_LEASES 1024 /* members of whom it is remembered whether they live x 200 B = 0.2 MiB */
#define LIMIT_DHT_REVOKED 65536
#define LIMIT_DHT_SOURCES 256      /* slots x 8 B in which the requests of senders are counted */
#define LIMIT_DHT_BLOB_BYTES 16384 /* 200 contacts x 53 B */

/* ---- sessions ---- */
#define LIMIT_FRAME_BYTES 65535 /* Noise message, Noise specification rev 34, section 3 */
#define LIMIT_FRAME_PLAIN_BYTES (LIMIT_FRAME_BYTES - 16)
#define LIMIT_CONTROL_BYTES (1u << 20)        /* one control message, reassembled from frames */
#define LIMIT_SESSION_OUT_BYTES (4u << 20)    /* waiting to be written to one peer; then it is too slow */
#define LIMIT_SESSION_BULK_BYTES (512u << 10) /* of those, chunks: 40 ms on 100 Mbit/s that a ping waits behind */
#define LIMIT_HANDSHAKE_PAYLOAD_BYTES 4096    /* a certificate chain (1,002) or an invitation's proof, with room */
#define LIMIT_SESSION_PING_MS 5000
#define LIMIT_SESSION_DEAD_MS 15000      /* without a byte: a link that is cut for 3 s, even for 10, survives */
#define LIMIT_SESSION_DRAIN_MS 15000     /* a peer that has something to read takes at least this much in this time */
#define LIMIT_SESSION_DRAIN_BYTES 4096   /* 273 B/s; less is somebody who holds our memory on purpose (faults 25) */
#define LIMIT_SESSION_CLOSE_MS 2000      /* to take what was queued before the CLOSE */
#define LIMIT_SESSIONS 256               /* x (4 MiB at the very worst, 70 KiB idle) */
#define LIMIT_SESSIONS_PER_BLOCK 64      /* from one /24 or /48, before they have authenticated */
#define LIMIT_HANDSHAKE_MS 5000          /* armed at accept; a stranger that is silent or slow is cut (faults 24) */
#define LIMIT_STRANGERS 128              /* of the sessions, those that came and have not shown a certificate */
#define LIMIT_GUEST_MS 15000             /* for one who asks to be let in; the asker itself waits for 10 s */
#define LIMIT_CALL_REQUESTS 1024         /* from all peers, not answered yet; x ~64 B */
#define LIMIT_CALL_REQUESTS_PER_LINK 256 /* of those, from one peer */

/* ---- certificates ---- */
#define LIMIT_CHAIN_CERTS 8
#define LIMIT_CERT_BYTES 121                                              /* exactly: docs/formats/identity.md */
#define LIMIT_CHAIN_BYTES (2 + 32 + LIMIT_CHAIN_CERTS * LIMIT_CERT_BYTES) /* 1,002: fits in one datagram */
#define LIMIT_REVOCATIONS 1024 /* x 1.1 KiB with the chain that proves it = 1.1 MiB */
#define LIMIT_ISSUED 16384     /* chains of those that this node admitted, x 1,004 bytes on disk = 16 MiB */
#define LIMIT_INVITATIONS 256  /* open at one time; the book is read and written whole */
#define LIMIT_INVITATION_USES 10000
#define LIMIT_INVITATION_TTL_S (30u * 86400)
#define LIMIT_ADMISSION_HINTS_BYTES 2048 /* 64 members' ids or 107 addresses */
#define LIMIT_ADMISSION_SOURCES 512      /* address blocks with failures, x 24 bytes */

/* ---- content ---- */
#define LIMIT_COSTS 1024 /* nodes of which measurements are kept; x ~150 B */
#define LIMIT_CHUNK_BYTES (256u << 10)
#define LIMIT_RUN_BYTES (1u << 20) /* one request asks for at most this much, or one chunk */
#define LIMIT_RUN_CHUNKS 256
#define LIMIT_GAP_BYTES (512u << 10)     /* of an object that one delta gives, */
#define LIMIT_GAP_BASIS_BYTES (1u << 20) /* and what it is made against: a job has both, a frame and zstd's 0.6 MiB */
#define LIMIT_OBJECT_CHUNKS (16u << 20)  /* 16 Mi chunks x 64 KiB = 1 TiB */
#define LIMIT_OBJECT_BYTES (1ull << 40)
#define LIMIT_MANIFEST_BYTES (4u << 20) /* OCI distribution spec: registries take at least 4 MiB */
#define LIMIT_JSON_DEPTH 32
#define LIMIT_JSON_VALUES 262144 /* in one image document; x ~100 bytes in memory = 25 MiB while it is read */

/* ---- exchange ---- */
#define LIMIT_FETCHES 4096             /* objects being fetched; x ~1 KiB before their recipe is known */
#define LIMIT_FETCH_BYTES (32u << 20)  /* asked for or arrived, not yet stored: all fetches together */
#define LIMIT_ARRIVED_BYTES (6u << 20) /* of those, arrived: more, and the CPU or the disk is what is slow */
#define LIMIT_CREDIT_BYTES (24u << 20) /* of those, asked of one peer: 1 Gbit/s at 100 ms is 12.5 MB; twice that */
#define LIMIT_CREDIT_FLOOR_BYTES (128u << 10) /* a slow peer, or one of many: two chunks of 64 KiB */
#define LIMIT_SERVE_BYTES (32u << 20)         /* read for peers and not yet sent, all peers together */
#define LIMIT_SERVE_BATCH_BYTES (1u << 20)    /* read at once for one peer, which has at most two of these */
#define LIMIT_SERVE_SLOTS 64                  /* peers that are sent to at one time, what is urgent not counted */
#define LIMIT_DEALS 16                        /* objects of which it is known what was sent, and their chunks: */
#define LIMIT_DEAL_CHUNKS (16u << 20)         /* x 2 B = 32 MiB, 1 TiB of objects */
#define LIMIT_PEER_RUNS 64                    /* requests that one peer may have waiting here; then BUSY */
#define LIMIT_PEER_ORDERS 64                  /* the same for deltas; each x 1.5 KiB and recipes in memory */
#define LIMIT_SIGNATURES_BYTES (16u << 20)    /* kept: 2 GiB of what objects are compared with */
#define LIMIT_DELTAS_BYTES (16u << 20)        /* kept, in case others ask for the same */
#define LIMIT_PEER_WANTS 1024            /* questions that one peer may have waiting: 32 KiB; then the session ends */
#define LIMIT_PEER_MAPS 64               /* bitmaps being made for one peer; then "none" */
#define LIMIT_PEER_STRIKES 16            /* messages that belong to no request; then the session ends (faults 37) */
#define LIMIT_RECIPES 64                 /* kept in memory to serve by, and of them together: */
#define LIMIT_RECIPES_CHUNKS (1u << 20)  /* x 44 B = 44 MiB, 64 GiB of objects */
#define LIMIT_PUSHED_CHUNKS (256u << 10) /* of a recipe that a peer teaches us to compare with: 11 MiB, 16 GiB */
#define LIMIT_TOLD_BYTES (1u << 20)      /* of an object whose recipe follows its HAVE: 64 chunks, 2.8 KiB at most */
#define LIMIT_PUSHES 4                   /* such lessons at a time, from all peers */
#define LIMIT_PEER_PUSHES 2              /* and from one of them */

#define LIMIT_INTERESTS 1024     /* objects of which it is remembered who wants them, for a while, */
#define LIMIT_PEER_INTERESTS 256 /* of those, by the wish of one peer */
#define LIMIT_WANTERS 256        /* and for each, how many: x 16 B = 4 MiB of all */

/* ---- store ---- */
#define LIMIT_SIMILAR_OBJECTS (64u << 10) /* looked through for one that resembles another; x 32 B = 2 MiB */
#define LIMIT_STORE_HOLDS (256u << 10)    /* pieces that ingests and assemblies rely on at once; x 80 B = 20 MiB */
#define LIMIT_STORE_PENDING (64u << 10)   /* chunks that can be read before their commit; x 160 B = 10 MiB */
#define LIMIT_STORE_TRACED (4u << 20)     /* leaves or roots that need what has rotted; x 80 B = 320 MiB if all do */
#define LIMIT_STORE_BATCH (16u << 10)     /* records that wait for one commit; x 176 B = 2.8 MiB a writer */

/* ---- scrub ---- */
#define LIMIT_RETRIES (4u << 10) /* objects that wait to be repaired each at its time; x 120 B = 480 KiB */

/* ---- archives ---- */
#define LIMIT_PATH_BYTES 4096
#define LIMIT_ARCHIVE_ENTRIES (4u << 20)
#define LIMIT_ARCHIVE_XATTR_BYTES 65536
#define LIMIT_ARCHIVE_XATTRS 1024 /* of one entry */
#define LIMIT_ARCHIVE_DEPTH 256   /* directories in each other, one descriptor each; below file_remove_tree's 512 */
#define LIMIT_ARCHIVE_NAMES_BYTES (64u << 20) /* names remembered for the end: directories, hard links */
#define LIMIT_ARCHIVE_HOLES 16384             /* in one file: a sparse map of 16 Ki x <= 40 bytes of text = 640 KiB */
#define LIMIT_ARCHIVE_STEP_BYTES                                                                                       \
    (4u << 20)                     /* read by one call of the tar parser: headers (<= 1 MiB each), sparse map */
#define LIMIT_ARCHIVE_RATIO 1100   /* plain to packed bytes: deflate reaches 1032, zstd could give 30,000 */
#define LIMIT_IMAGE_LAYERS 256     /* overlayfs takes 500 lower directories, docker 127 */
#define LIMIT_IMAGES 4096          /* named in one store */
#define LIMIT_IMAGE_DOCUMENTS 8    /* index.json, indexes in each other, the manifest */
#define LIMIT_IMAGE_HEAD_BYTES 256 /* of a gzip blob, kept as it is: 10 bytes and perhaps a file's name */

/* ---- containers ---- */
#define LIMIT_RUNTIME_SPEC_BYTES (256u << 10)  /* arguments, environment and labels of one; execve takes 2 MiB */
#define LIMIT_RUNTIME_RECORD_BYTES (2u << 20)  /* container.json: 6 bytes of JSON for one at worst, and the rest */
#define LIMIT_RUNTIME_OUTPUT_BYTES (64u << 10) /* kept of what runc says, of the front and of the end */

/* ---- local API ---- */
#define LIMIT_API_BODY_BYTES (1u << 20) /* JSON requests; uploads stream */
#define LIMIT_API_CONNECTIONS 64
#define LIMIT_API_SPARE_CONNECTIONS 16          /* beyond those, only to be told that there are too many */
#define LIMIT_API_CONNECTION_BYTES (128u << 10) /* headers and one read; 80 x 128 KiB = 10 MiB */
#define LIMIT_API_TARGET_BYTES 4096             /* path and query */
#define LIMIT_API_PATH_SEGMENTS 8
#define LIMIT_API_QUERY_FIELDS 16
#define LIMIT_API_STREAM_BYTES (1u << 20) /* queued for one client; 64 x 1 MiB */
#define LIMIT_API_REQUEST_MS 30000        /* from accept, or the last answer, to a whole request (faults 24) */
#define LIMIT_API_DISCARD_MS 10000        /* a refused upload is read on for so long, then cut */
#define LIMIT_API_SILENT_MS 600000        /* without a byte either way */

/* ---- RESP gateway ---- */
#define LIMIT_RESP_CLIENTS 512                /* x (16 KiB idle, 2 MiB with the longest command half read) */
#define LIMIT_RESP_ARGS 65536                 /* words of one command, x 32 B = 2 MiB */
#define LIMIT_RESP_ARG_BYTES (64u << 10)      /* of one word */
#define LIMIT_RESP_COMMAND_BYTES (1u << 20)   /* of all words of one command */
#define LIMIT_RESP_INLINE_BYTES (64u << 10)   /* a command that is one line */
#define LIMIT_RESP_OUT_BYTES (32u << 20)      /* replies that one client has not read; then it is cut */
#define LIMIT_RESP_OUT_ALL_BYTES (256u << 20) /* of all clients together; then the one that asks for more is cut */
#define LIMIT_RESP_PUSHED_BYTES (1u << 20)    /* messages that a subscriber has not read; then it is cut */
#define LIMIT_RESP_COMMAND_MS 30000           /* from the first byte of a command to its last */
#define LIMIT_RESP_CHANNELS 4096              /* subscribed to, of all clients together */
#define LIMIT_RESP_SUBSCRIPTIONS 65536        /* of clients to channels, x 64 B = 4 MiB */
#define LIMIT_RESP_MESSAGE_BYTES 480          /* a published message: a record's data less 16 random bytes */
#define LIMIT_SET_NAME_BYTES 1024             /* the name of a set or a channel */
#define LIMIT_SET_MEMBER_BYTES 512            /* DHT_DATA_MAX_BYTES: a member is the data of its record */
#define LIMIT_SETS 65536                      /* in memory, x (200 B and the name) */
#define LIMIT_SET_MEMBERS (1u << 20)          /* in memory, of all sets, x ~(120 B and the name) = 250 MiB at worst */
#define LIMIT_SET_BATCH_BYTES (8u << 20)      /* written, waiting for the next commit; then writers wait too */
