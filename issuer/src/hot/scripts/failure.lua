-- Notes a failed authentication; locks out where there were too many.
-- KEYS: the failures of the pair, its lockout, the client's networks. ARGV: now, attempts, window and lockout (all times in milliseconds), the network.
-- Answer: 0; 1 if this failure locked out; 2 and for how many milliseconds still if one before it had.
local now, attempts, window, lockout = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local left = redis.call('PTTL', KEYS[2])
if left > 0 then
    return {2, left}
end
redis.call('RPUSH', KEYS[1], ARGV[1])
redis.call('LTRIM', KEYS[1], -attempts, -1)
redis.call('PEXPIRE', KEYS[1], window)
local kept = math.max(window, lockout)
redis.call('ZREMRANGEBYSCORE', KEYS[3], '-inf', now)
redis.call('ZADD', KEYS[3], now + kept, ARGV[5])
redis.call('PEXPIRE', KEYS[3], kept)
if redis.call('LLEN', KEYS[1]) < attempts or now - tonumber(redis.call('LINDEX', KEYS[1], 0)) >= window then
    return {0}
end
redis.call('DEL', KEYS[1])
redis.call('SET', KEYS[2], now + lockout, 'PX', lockout)
return {1}
