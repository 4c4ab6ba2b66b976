
/* Copyright (C) the ngx_http_iothub_module authors */

#include "ngx_http_iothub_alarm.h"


/* seconds */

#define NGX_HTTP_IOTHUB_ALARM_CLOCK_SKEW  300


static const char *const  ngx_http_iothub_alarm_texts[] = {

    /* NGX_HTTP_IOTHUB_ALARM_KEYS */
    "refuses every key of policy \"%V\": put its present keys into the key "
    "file and reload, or see whether the hub's network rules refuse this "
    "machine",

    /* NGX_HTTP_IOTHUB_ALARM_CONNECT */
    "refuses messages: policy \"%V\" lacks the right device connect",

    /* NGX_HTTP_IOTHUB_ALARM_READ */
    "refuses to look up identities: policy \"%V\" lacks the right registry "
    "read",

    /* NGX_HTTP_IOTHUB_ALARM_WRITE */
    "refuses to create identities: policy \"%V\" lacks the right registry "
    "write"
};


static ngx_uint_t ngx_http_iothub_alarm_is_due(ngx_http_iothub_hub_t *hub,
    ngx_http_iothub_alarm_e kind);


void
ngx_http_iothub_alarm(ngx_http_iothub_hub_t *hub,
    ngx_http_iothub_alarm_e kind, ngx_log_t *log)
{
    u_char  *p, text[NGX_MAX_CONF_ERRSTR];

    if (!ngx_http_iothub_alarm_is_due(hub, kind)) {
        return;
    }

    p = ngx_snprintf(text, NGX_MAX_CONF_ERRSTR,
                     ngx_http_iothub_alarm_texts[kind], &hub->policy);

    ngx_log_error(NGX_LOG_CRIT, log, 0, "iothub hub \"%V\" %*s", &hub->name,
                  p - text, text);
}


void
ngx_http_iothub_alarm_messages(ngx_http_iothub_hub_t *hub, ngx_log_t *log)
{
    uint64_t  keys, connect;

    keys = __atomic_load_n(&hub->shm->alarms[NGX_HTTP_IOTHUB_ALARM_KEYS],
                           __ATOMIC_RELAXED);
    connect = __atomic_load_n(&hub->shm->alarms[NGX_HTTP_IOTHUB_ALARM_CONNECT],
                              __ATOMIC_RELAXED);

    ngx_http_iothub_alarm(hub, connect > keys ? NGX_HTTP_IOTHUB_ALARM_CONNECT
                                              : NGX_HTTP_IOTHUB_ALARM_KEYS,
                          log);
}


void
ngx_http_iothub_alarm_clock(ngx_http_iothub_hub_t *hub, ngx_str_t *date,
    time_t now, ngx_log_t *log)
{
    time_t  theirs, apart;

    theirs = ngx_parse_http_time(date->data, date->len);

    if (theirs == NGX_ERROR) {
        return;
    }

    apart = (now > theirs) ? now - theirs : theirs - now;

    if (apart <= NGX_HTTP_IOTHUB_ALARM_CLOCK_SKEW
        || !ngx_http_iothub_alarm_is_due(hub, NGX_HTTP_IOTHUB_ALARM_CLOCK))
    {
        return;
    }

    ngx_log_error(NGX_LOG_CRIT, log, 0,
                  "iothub hub \"%V\" refuses a token, and this machine's "
                  "clock is %T s %s the hub's: set it right", &hub->name,
                  apart, now > theirs ? "ahead of" : "behind");
}


static ngx_uint_t
ngx_http_iothub_alarm_is_due(ngx_http_iothub_hub_t *hub,
    ngx_http_iothub_alarm_e kind)
{
    return ngx_http_iothub_gate_alarm(&hub->shm->alarms[kind],
                                      ngx_current_msec)
           == NGX_OK;
}
