/* cmig-node: the daemon's command line. The table of commands is first; each command is a function below. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "node/admission.h"
#include "node/api/client.h"
#include "node/api/json.h"
#include "node/base/file.h"
#include "node/base/log.h"
#include "node/net/sock.h"
#include "node/process.h"

/* As cmig-node(8) promises them. FOUND is fsck's: something is or was wrong. */
enum { EXIT_DONE = 0, EXIT_FAILED = 1, EXIT_USAGE = 2, EXIT_NOT_FOUND = 3, EXIT_NO_DAEMON = 4, EXIT_REFUSED = 5 };

/* What the flags of single commands were given as; NULL: not given. */
struct flags {
    const char *uses, *ttl, *address, *json, *token_file, *repair;
};

typedef int (*command_cb)(const struct config *config, const struct flags *flags, struct err *err);
static int run_init(const struct config *config, const struct flags *flags, struct err *err);
static int run_invite(const struct config *config, const struct flags *flags, struct err *err);
static int run_join(const struct config *config, const struct flags *flags, struct err *err);
static int run_start(const struct config *config, const struct flags *flags, struct err *err);
static int run_revoke(const struct config *config, const struct flags *flags, struct err *err);
static int run_fsck(const struct config *config, const struct flags *flags, struct err *err);

#define OPTIONS_MAX 5

struct option {
    const char *name, *unit, *help;
    size_t offset; /* in struct flags */
};
#define FLAG(field) offsetof(struct flags, field)

static const struct command {
    const char *name;
    const char *operands;
    const char *summary;
    command_cb run;
    size_t operand_count;
    struct option options[OPTIONS_MAX];
    const char *more; /* for --help: what it does, then examples */
} commands[] = {
    {"init", "", "make this node the first of a new cluster", run_init, 0,
     .more = //
     "Makes the node's key and the cluster's root key in the state directory. It does not run the node.\n\n"
     "  cmig-node init\n"
     "  cmig-node init --dir /srv/n1 && cmig-node start --dir /srv/n1\n"},
    {"start", "", "run from the state directory", run_start, 0,
     .more = //
     "Runs until SIGINT or SIGTERM; containers run on without it.\n\n"
     "  cmig-node start\n"
     "  cmig-node start --dir /srv/n1 --listen 127.0.0.1:7501\n"},
    {"invite",
     "",
     "print an invitation for a new node",
     run_invite,
     0,
     {{"uses", "N", "how many nodes it lets in (1)", FLAG(uses)},
      {"ttl", "T", "how long it is good for: 90, 15m, 2h, 7d (15m)", FLAG(ttl)},
      {"address", "HOST[:PORT]", "where the newcomer finds this node; else as it is known to others", FLAG(address)},
      {"json", NULL, "print the daemon's answer as JSON", FLAG(json)}},
     "Asks the running node. Who has the invitation can join until it is used up or late.\n\n"
     "  cmig-node invite\n"
     "  cmig-node invite --uses 10 --ttl 1h --address edge-1.example.org\n"},
    {"join",
     "PEER",
     "become a member of a cluster, then run",
     run_join,
     1,
     {{"token-file", "FILE", "read the invitation from a file, PEER is then HOST[:PORT]", FLAG(token_file)}},
     "PEER is an invitation, or the HOST[:PORT] of any member with the invitation in --token-file or $CMIG_TOKEN, "
     "where\n"
     "other users of this machine do not see it. A node that is a member already just starts.\n\n"
     "  cmig-node join cmig://192.0.2.7:7421/8c1f.../5d0e...\n"
     "  cmig-node join edge-1.example.org --token-file /root/invitation\n"},
    {"revoke", "NODE", "expel a node from the cluster, for good", run_revoke, 1,
     .more = //
     "NODE is an id, the first 6 digits of one or more, or a name. Asks the running node, which must hold the root "
     "key\n"
     "or have admitted the other; all members are told and cut it off.\n\n"
     "  cmig-node revoke 2fc7e1a90b4d\n"},
    {"fsck",
     "",
     "check all stored content against its digests",
     run_fsck,
     0,
     {{"repair", NULL, "drop what is damaged and make a new index from the rest", FLAG(repair)}},
     "The node must not run. Exits with 1 if something was found, repaired or not.\n\n"
     "  cmig-node fsck\n"
     "  cmig-node fsck --repair --dir /srv/n1\n"},
};

#define COMMAND_COUNT (sizeof commands / sizeof *commands)

/* ---- help ---- */

static void print_help(FILE *out)
{
    fputs("usage: cmig-node COMMAND [FLAGS] [OPERAND]\n\ncommands:\n", out);
    for (size_t i = 0; i < COMMAND_COUNT; i++) {
        char left[32];
        snprintf(left, sizeof left, "%s %s", commands[i].name, commands[i].operands);
        fprintf(out, "  %-14s %s\n", left, commands[i].summary);
    }
    fputs("  help           this text, or that of one command\n"
          "  version        the version of cmig-node\n\n"
          "'cmig-node COMMAND --help' has flags and examples; cmig-node(8) has everything.\n"
          "Exit codes: 0 done, 1 failed, 2 misused, 3 not found, 4 the daemon does not run, 5 refused.\n",
          out);
}

static void print_command_help(const struct command *command)
{
    OWNED(buf_release) struct buf keys = BUF(65536);
    printf("usage: cmig-node %s [FLAGS]%s%s\n\n%s\n%s", command->name, *command->operands ? " " : "", command->operands,
           command->summary, command->options[0].name ? "\nflags:\n" : "");
    for (const struct option *option = command->options; option->name; option++) {
        char left[40];
        snprintf(left, sizeof left, "--%s%s%s", option->name, option->unit ? " " : "",
                 option->unit ? option->unit : "");
        printf("  %-22s %s\n", left, option->help);
    }
    printf("\n%s\n", command->more);
    config_help(&keys);
    const char *text = buf_str(&keys);
    printf("flags of all commands, and keys of the configuration file:\n%s", text ? text : "");
}

static const struct command *find_command(const char *name)
{
    for (size_t i = 0; i < COMMAND_COUNT; i++)
        if (strcmp(commands[i].name, name) == 0)
            return &commands[i];
    return NULL;
}

static int misuse(const struct command *command, const char *text)
{
    fprintf(stderr, "cmig-node: %s\nsee 'cmig-node %s%s--help'\n", text, command ? command->name : "",
            command ? " " : "");
    return EXIT_USAGE;
}

/* ---- init ---- */

static int run_init(const struct config *config, const struct flags *flags, struct err *err)
{
    (void)flags;
    OWNED(owned_identity) struct identity *identity = NULL;
    struct clock clock = clock_system();
    char cluster[ID_HEX_SIZE], node[ID_HEX_SIZE];
    int status = identity_open(config->dir, &identity, err);
    if (status == 0)
        status = identity_init(identity, clock_wall_ms(&clock) / 1000, err);
    if (status < 0)
        return status;
    printf("cluster %s\nnode    %s\n", id_hex(identity_cluster(identity), cluster),
           id_hex(identity_id(identity), node));
    fprintf(stderr,
            "This node is the first of a new cluster, whose root key is '%s/root.key': keep a copy in a safe place.\n"
            "Run it with 'cmig-node start', then let others in with 'cmig-node invite'.\n",
            config->dir);
    return 0;
}

/* ---- running ---- */

/* The peers of the configuration, resolved by a job: resolvers may take their time, and at boot they may not be there
 * yet.
 */
struct seeds {
    struct node *node;
    struct seed {
        struct addr addrs[SOCK_MAX_ADDRS];
        size_t count; /* 0: not found yet */
        struct err err;
    } of[CONFIG_MAX_PEERS];
};

#define RESOLVE_AGAIN_MS 30000

static void ask_seeds(void *ctx);

static void resolve_seeds(void *arg)
{
    struct seeds *seeds = arg;
    const struct config *config = seeds->node->config;
    for (size_t i = 0; i < config->peer_count; i++) {
        struct seed *seed = &seeds->of[i];
        if (sock_resolve(config->peers[i], ADDR_DEFAULT_PORT, seed->addrs, &seed->count, &seed->err) < 0)
            seed->count = 0;
    }
}

static void on_seeds_resolved(void *arg)
{
    OWNED(owned_free) struct seeds *seeds = arg;
    struct node *node = seeds->node;
    bool all = true;
    for (size_t i = 0; i < node->config->peer_count; i++) {
        const struct seed *seed = &seeds->of[i];
        for (size_t j = 0; j < seed->count; j++)
            mesh_bootstrap(node->mesh, &seed->addrs[j]);
        if (seed->count == 0)
            log_warn("node", "a configured peer is not asked yet why=\"%s\"", seed->err.text);
        all &= seed->count > 0;
    }
    if (!all)
        timers_after(node->timers, RESOLVE_AGAIN_MS, ask_seeds, node);
}

static void ask_seeds(void *ctx)
{
    struct node *node = ctx;
    bool names = false;
    for (size_t i = 0; i < node->config->peer_count; i++) {
        struct addr addr;
        if (addr_parse(node->config->peers[i], ADDR_DEFAULT_PORT, &addr))
            mesh_bootstrap(node->mesh, &addr);
        else
            names = true;
    }
    struct seeds *seeds = names ? calloc(1, sizeof *seeds) : NULL;
    if (!seeds)
        return;
    seeds->node = node;
    jobs_submit(&node->jobs, resolve_seeds, on_seeds_resolved, seeds);
}

/* Takes the identity. `member` (may be NULL) is somebody to begin with. */
static int run_node(const struct config *config, uv_loop_t *loop, struct identity **identity, const struct addr *member,
                    struct err *err)
{
    struct node *node = NULL;
    char id[ID_HEX_SIZE];
    int status = node_start(config, loop, *identity, &node, err);
    if (status < 0)
        return status;
    STEAL(*identity);
    log_info("node", "running node=%s version=%s socket=%s", id_hex(identity_id(node->identity), id), CMIG_VERSION,
             config->socket);
    if (member)
        mesh_bootstrap(node->mesh, member);
    ask_seeds(node);
    process_run(node);
    node_free(node);
    log_info("node", "stopped");
    return 0;
}

static void close_loop(uv_loop_t *loop)
{
    uv_run(loop, UV_RUN_DEFAULT);
    if (uv_loop_close(loop) != 0)
        log_warn("node", "the loop has handles left");
}

static int run_start(const struct config *config, const struct flags *flags, struct err *err)
{
    (void)flags;
    OWNED(owned_identity) struct identity *identity = NULL;
    process_prepare(config);
    /* A mistyped directory is not made. */
    int status = file_exists(config->dir) ? identity_open(config->dir, &identity, err) : 0;
    if (status < 0)
        return status;
    if (!identity || !identity_is_member(identity))
        return err_set(
            err, ERR_CONFLICT,
            "the node in '%s' belongs to no cluster: 'cmig-node init' makes a new one, 'cmig-node join PEER' "
            "enters one",
            config->dir);
    uv_loop_t loop;
    uv_loop_init(&loop);
    status = run_node(config, &loop, &identity, NULL, err);
    close_loop(&loop);
    return status;
}

static int run_join(const struct config *config, const struct flags *flags, struct err *err)
{
    OWNED(owned_identity) struct identity *identity = NULL;
    OWNED(owned_free) char *token = NULL;
    struct addr member = {0};
    uv_loop_t loop;
    process_prepare(config);
    int status = process_read_token(flags->token_file, &token, err);
    if (status == 0)
        status = identity_open(config->dir, &identity, err);
    if (status < 0)
        return status;
    uv_loop_init(&loop);
    bool was_member = identity_is_member(identity);
    if (was_member)
        log_info("node", "a member already, the invitation is not used");
    else
        status = admission_join(&loop, identity, config->words[0], token, config->name, &member, err);
    if (status == 0)
        status = run_node(config, &loop, &identity, was_member ? NULL : &member, err);
    close_loop(&loop);
    if (token)
        crypto_wipe(token, strlen(token));
    return status == ERR_UNAVAILABLE ? ERR_TIMEOUT : status; /* EXIT_NO_DAEMON is said of the node's own */
}

/* ---- what the running node is asked ---- */

static int ask_daemon(const struct config *config, enum api_route_id route, const json_t *body, json_t **ret_reply,
                      struct err *err)
{
    OWNED(owned_api_client) struct api_client *client = NULL;
    struct api_call call = {.route = route, .body = body};
    int status = api_client_new(config->socket, &client, err);
    if (status == 0)
        status = api_client_call(client, &call, ret_reply, err);
    if (status == ERR_UNAVAILABLE && client && !api_client_error(client))
        err_wrap(err, "the node must run for this");
    return status;
}

static int make_wish(const struct flags *flags, json_t *wish, struct err *err)
{
    uint64_t ttl_s;
    if (flags->uses) {
        char *end;
        unsigned long long uses = strtoull(flags->uses, &end, 10);
        if (flags->uses[strspn(flags->uses, "0123456789")] || uses == 0 || uses > LIMIT_INVITATION_USES)
            return err_set(err, ERR_INVALID, "--uses '%s' is not a number from 1 to %d", flags->uses,
                           LIMIT_INVITATION_USES);
        json_object_set_new(wish, "uses", json_integer((json_int_t)uses));
    }
    if (flags->ttl) {
        if (!process_parse_duration(flags->ttl, LIMIT_INVITATION_TTL_S, &ttl_s))
            return err_set(err, ERR_INVALID, "--ttl '%s' is not a time like 90, 15m, 2h or 7d, of at most 30 days",
                           flags->ttl);
        json_object_set_new(wish, "ttl_s", json_integer((json_int_t)ttl_s));
    }
    if (flags->address)
        json_object_set_new(wish, "address", json_string(flags->address));
    return 0;
}

static int run_invite(const struct config *config, const struct flags *flags, struct err *err)
{
    OWNED(owned_json) json_t *wish = json_object();
    OWNED(owned_json) json_t *reply = NULL;
    if (make_wish(flags, wish, err) < 0)
        return misuse(find_command("invite"), err->text);
    int status = ask_daemon(config, API_ROUTE_invitation_create, wish, &reply, err);
    if (status < 0)
        return status;
    if (flags->json) {
        json_dumpf(reply, stdout, JSON_INDENT(2));
        putchar('\n');
        return 0;
    }
    puts(api_json_text(reply, "invitation"));
    fflush(stdout);
    fprintf(stderr, "On the new node: cmig-node join %s\n", api_json_text(reply, "invitation"));
    return 0;
}

static int run_revoke(const struct config *config, const struct flags *flags, struct err *err)
{
    (void)flags;
    OWNED(owned_json) json_t *body = json_pack("{s:s}", "node", config->words[0]);
    OWNED(owned_json) json_t *reply = NULL;
    if (!body)
        return err_set(err, ERR_INVALID, "the name of the node is not UTF-8");
    int status = ask_daemon(config, API_ROUTE_revocation_create, body, &reply, err);
    if (status == 0)
        printf("revoked %s\n", api_json_text(reply, "node"));
    return status;
}

/* ---- fsck ---- */

static void print_finding(const char *finding, void *ctx)
{
    (void)ctx;
    printf("%s\n", finding);
}

static void print_report(const struct store_fsck_report *report)
{
    printf("%llu packs, %llu records, %llu objects whole\n", (unsigned long long)report->packs,
           (unsigned long long)report->records, (unsigned long long)report->objects);
    printf("%llu records damaged, %llu refused by the disk, %llu unused, %llu packs cut short, %llu objects "
           "incomplete, %llu lost\n",
           (unsigned long long)report->records_bad, (unsigned long long)report->records_unread,
           (unsigned long long)report->records_unused, (unsigned long long)report->tails_truncated,
           (unsigned long long)report->objects_broken, (unsigned long long)report->objects_lost);
    if (!report->index_usable)
        printf("the index could not be read: names, pins and tables are lost\n");
}

static int run_fsck(const struct config *config, const struct flags *flags, struct err *err)
{
    OWNED(owned_free) char *dir = file_path("%s/store", config->dir);
    struct store_fsck_report report = {0};
    if (!dir)
        return err_set(err, ERR_NOMEM, "no memory for a path");
    if (!file_exists(dir))
        return err_set(err, ERR_NOTFOUND, "there is no store in '%s'", config->dir);
    int sound = store_fsck(dir, flags->repair != NULL, clock_system(), &report, print_finding, NULL, err);
    if (sound == ERR_BUSY)
        return err_wrap(err, "stop the node first");
    if (sound < 0)
        return sound;
    print_report(&report);
    puts(sound             ? "sound"
         : report.repaired ? "repaired; what is missing can be fetched again from other nodes"
                           : "damaged: 'cmig-node fsck --repair' keeps what is whole");
    return sound ? 0 : EXIT_FAILED;
}

/* ---- the command line ---- */

static int exit_code_of(int status)
{
    switch (status) {
    case ERR_NOTFOUND:
        return EXIT_NOT_FOUND;
    case ERR_AUTH:
    case ERR_DENIED:
        return EXIT_REFUSED;
    case ERR_UNAVAILABLE:
        return EXIT_NO_DAEMON;
    default:
        return status < 0 ? EXIT_FAILED : status;
    }
}

static int run_command(const struct command *command, int argc, char **argv)
{
    OWNED(owned_config) struct config *config = NULL;
    struct flags flags = {0};
    struct config_option options[OPTIONS_MAX + 1] = {0};
    struct err err = {0};
    for (size_t i = 0; command->options[i].name; i++)
        options[i] =
            (struct config_option){command->options[i].name, command->options[i].unit, command->options[i].help,
                                   (const char **)((char *)&flags + command->options[i].offset)};
    if (config_load(argc, argv, options, &config, &err) < 0)
        return misuse(command, err.text);
    if (config->help) {
        print_command_help(command);
        return EXIT_DONE;
    }
    if (config->word_count != command->operand_count) {
        err_set(&err, ERR_INVALID, "'%s' takes %s%s", command->name,
                command->operand_count ? "one operand, " : "no operands", command->operands);
        return misuse(command, err.text);
    }
    int status = crypto_init(&err);
    if (status == 0)
        status = command->run(config, &flags, &err);
    if (status < 0)
        fprintf(stderr, "cmig-node: %s\n", err.text);
    return exit_code_of(status);
}

static int print_version(void)
{
    puts("cmig-node " CMIG_VERSION);
    return EXIT_DONE;
}

static bool takes_value(const char *flag)
{
    for (size_t i = 0; i < COMMAND_COUNT; i++)
        for (const struct option *option = commands[i].options; option->name; option++)
            if (strcmp(option->name, flag + 2) == 0)
                return option->unit != NULL;
    return !strchr(flag, '='); /* as all keys of the file do */
}

/* `cmig-node --dir DIR start` is `cmig-node start --dir DIR`. */
static void command_first(int argc, char **argv)
{
    int at = 1;
    while (at < argc && strncmp(argv[at], "--", 2) == 0)
        at += takes_value(argv[at]) ? 2 : 1;
    if (at >= argc || !find_command(argv[at]))
        return;
    char *name = argv[at];
    memmove(argv + 2, argv + 1, (size_t)(at - 1) * sizeof *argv);
    argv[1] = name;
}

int main(int argc, char **argv)
{
    command_first(argc, argv);
    const char *name = argc > 1 ? argv[1] : "";
    bool wants_help = strcmp(name, "help") == 0 || strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0;
    if (strcmp(name, "version") == 0 || strcmp(name, "--version") == 0)
        return print_version();
    const struct command *command = find_command(wants_help && argc > 2 ? argv[2] : name);
    if (wants_help && command) {
        print_command_help(command);
        return EXIT_DONE;
    }
    if (wants_help && argc == 2) {
        print_help(stdout);
        return EXIT_DONE;
    }
    if (!command && argc < 2) {
        print_help(stderr);
        return EXIT_USAGE;
    }
    if (!command) {
        struct err err;
        const char *word = wants_help ? argv[2] : name;
        err_set(&err, ERR_INVALID, *word == '-' ? "'%s' is given, but no command" : "there is no command '%s'", word);
        return misuse(NULL, err.text);
    }
    return run_command(command, argc - 1, argv + 1);
}
