-- Adds to the monthly counts of clients: HotState::add_monthly, issuer/src/hot/mod.rs.
-- KEYS: the counts. ARGV: for each how much, and the Unix time at which it ends.
for i, count in ipairs(KEYS) do
    local tokens = tonumber(ARGV[2 * i - 1])
    if redis.call('INCRBY', count, tokens) == tokens then
        redis.call('EXPIREAT', count, ARGV[2 * i])
    end
end
