# Random commands for a server of sorted sets, one a line, as redis-cli reads them: a seed gives one text. Their replies
# do not depend on when they are asked.
# usage: awk -v seed=N -v count=N [-v members=N] -f resp_commands.awk
function below(n) { return int(rand() * n) }
function pick(list,   parts, n) { n = split(list, parts, /[ ]/); return parts[1 + below(n)] }
function choose(list,   parts, n) { n = split(list, parts, /[|]/); return parts[1 + below(n)] }
function key() { return "k" below(4) }
function word() { return rand() < 0.05 ? choose("\"a b\"|\"\\x00\\xff\"|\"quo\\\"te\"|Z|zz") : "m" below(members) }
function score() {
    if (rand() < 0.7) return below(20) - 5
    return choose("0.1|-2.5|1e3|3.0e-2|inf|-inf|+inf|1.7976931348623157e308|123456789012345678|-0|nan|1e400|abc|\"\"|0x10|+5|.5|5.|\" 1\"")
}
function score_end() { return rand() < 0.2 ? pick("-inf +inf inf (inf (-inf abc (abc nan \"\" (") : (rand() < 0.3 ? "(" : "") score() }
function name_end() { return rand() < 0.3 ? pick("- + a \"\" ( [ -x") : pick("[ (") "m" below(members) }
function rank() { return rand() < 0.1 ? pick("a 1.5 9223372036854775807 -9223372036854775808 9223372036854775808 01") : below(16) - 8 }
function limit() { return rand() < 0.4 ? " LIMIT " rank() " " rank() : "" }
function with() { return rand() < 0.5 ? " WITHSCORES" : "" }
function maybe(text) { return rand() < 0.3 ? " " text : "" }
function odd(text) { return rand() < 0.02 ? text " extra" : rand() < 0.02 ? substr(text, 1, index(text " ", " ") - 1) : text }
function pairs(   text, n) { for (n = 1 + below(3); n > 0; n--) text = text " " score() " " word(); return text }
function words(   text, n) { for (n = 1 + below(3); n > 0; n--) text = text " " word(); return text }
function keys(   text, n) { for (n = 1 + below(3); n > 0; n--) text = text " " key(); return text }
function zadd() { return "ZADD " key() maybe(pick("NX XX nx")) maybe(pick("GT LT")) maybe("CH") (rand() < 0.1 ? " INCR" : "") pairs() }
function zrange(   kind) {
    kind = below(4)
    if (kind == 0) return "ZRANGE " key() " " rank() " " rank() maybe("REV") limit() with()
    if (kind == 1) return "ZRANGE " key() " " score_end() " " score_end() " BYSCORE" maybe("REV") limit() with()
    if (kind == 2) return "ZRANGE L " name_end() " " name_end() " BYLEX" maybe("REV") limit() (rand() < 0.05 ? " WITHSCORES" : "")
    return pick("ZREVRANGE ZRANGE") " " key() " " rank() " " rank() with()
}
function ends() {
    if (rand() < 0.5) return pick("ZRANGEBYSCORE ZREVRANGEBYSCORE") " " key() " " score_end() " " score_end() with() limit()
    return pick("ZRANGEBYLEX ZREVRANGEBYLEX") " L " name_end() " " name_end() limit()
}
function expiry(   kind) {
    kind = below(4)
    if (kind == 0) return "EXPIRE " key() " " (rand() < 0.7 ? 1000 * (1 + below(1000)) : pick("0 -1 abc 9223372036854775807")) maybe(pick("NX XX GT LT foo"))
    if (kind == 1) return "PERSIST " key()
    if (kind == 2) return pick("EXPIREAT PEXPIREAT") " L " pick("4000000000 4000000000000 1 abc") maybe(pick("NX XX GT LT"))
    return pick("EXPIRETIME PEXPIRETIME") " L"
}
function one(   kind) {
    kind = below(100)
    if (kind < 30) return zadd()
    if (kind < 34) return "ZADD L 0 m" below(12)
    if (kind < 38) return "ZINCRBY " key() " " score() " " word()
    if (kind < 44) return "ZREM " key() words()
    if (kind < 56) return zrange()
    if (kind < 66) return ends()
    if (kind < 70) return pick("ZRANK ZREVRANK ZSCORE") " " key() " " word()
    if (kind < 72) return "ZMSCORE " key() words()
    if (kind < 75) return "ZCOUNT " key() " " score_end() " " score_end()
    if (kind < 77) return "ZLEXCOUNT L " name_end() " " name_end()
    if (kind < 79) return "ZCARD " key()
    if (kind < 81) return pick("ZPOPMIN ZPOPMAX") " " key() maybe(pick("2 0 -1 a 3"))
    if (kind < 83) return "ZREMRANGEBYSCORE " key() " " score_end() " " score_end()
    if (kind < 85) return "ZREMRANGEBYRANK " key() " " rank() " " rank()
    if (kind < 86) return "ZREMRANGEBYLEX L " name_end() " " name_end()
    if (kind < 88) return "ZSCAN " key() " " pick("0 0 0 abc -") maybe("MATCH " pick("m* *1 m? m[1-3] [^m]* m\\\\1 \"\" [m *")) maybe("COUNT " pick("1 100 0 -1 a"))
    if (kind < 90) return pick("EXISTS DEL UNLINK") keys()
    if (kind < 92) return "TYPE " key()
    if (kind < 97) return expiry()
    if (kind < 98) return "TTL nokey"
    if (kind < 99) return choose("DBSIZE|PING|PING x|ECHO y|SELECT 0|SELECT a")
    return "SCAN 0 MATCH nothing" maybe("COUNT " pick("1000 0 a")) maybe("TYPE zset")
}
BEGIN {
    srand(seed)
    members = members ? members : 12
    for (; count > 0; count--) {
        print odd(one())
    }
}
