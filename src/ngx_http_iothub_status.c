
/* Copyright (C) the ngx_http_iothub_module authors */

#include "ngx_http_iothub_status.h"
#include "ngx_http_iothub_event.h"
#include "ngx_http_iothub_prometheus.h"
#include "ngx_http_iothub_status_json.h"


/* what is asked for; a string without data was not given */

typedef struct {
    ngx_str_t                       name;
    ngx_str_t                       device;
    ngx_str_t                       health;

    ngx_http_iothub_hub_t         **hubs;
    ngx_uint_t                      nhubs;
    ngx_http_iothub_main_conf_t    *imcf;
} ngx_http_iothub_status_query_t;


static ngx_int_t ngx_http_iothub_status_handler(ngx_http_request_t *r);
static ngx_int_t ngx_http_iothub_status_query(ngx_http_request_t *r,
    ngx_http_iothub_status_query_t *query);
static ngx_int_t ngx_http_iothub_status_arg(ngx_http_request_t *r,
    const char *name, ngx_str_t *value);
static void ngx_http_iothub_status_device(ngx_http_iothub_report_t *rep,
    ngx_http_iothub_status_query_t *query);
static ngx_uint_t ngx_http_iothub_status_health(ngx_http_iothub_report_t *rep,
    ngx_http_iothub_status_query_t *query);
static ngx_int_t ngx_http_iothub_status_all(ngx_http_iothub_report_t *rep,
    ngx_http_iothub_status_query_t *query, ngx_uint_t format);
static ngx_int_t ngx_http_iothub_status_problem(ngx_http_request_t *r,
    ngx_http_iothub_report_t *rep, ngx_uint_t status, const char *title);
static ngx_int_t ngx_http_iothub_status_send(ngx_http_request_t *r,
    ngx_http_iothub_report_t *rep, ngx_uint_t status, const char *type);


static const struct {
    ngx_str_t                       name;
    const char                     *type;
    void                          (*write)(ngx_http_iothub_report_t *rep,
                                        ngx_http_iothub_snapshot_t *snapshots,
                                        ngx_uint_t n,
                                        ngx_http_iothub_main_conf_t *imcf,
                                        ngx_http_iothub_metrics_counts_t *);
} ngx_http_iothub_status_formats[] = {

    { ngx_string("json"), "application/json", ngx_http_iothub_status_json },

    { ngx_string("prometheus"), "text/plain; version=0.0.4; charset=utf-8",
      ngx_http_iothub_prometheus }
};


/* by what the cache says of a device */

static const char *const  ngx_http_iothub_status_states[] = {
    "unknown", "known", "settling", "blocked", "recheck"
};


char *
ngx_http_iothub_status(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_http_iothub_loc_conf_t *ilcf = conf;

    ngx_str_t                 *value;
    ngx_uint_t                 i, n;
    ngx_http_core_loc_conf_t  *clcf;

    if (ilcf->status != NGX_CONF_UNSET_UINT) {
        return "is duplicate";
    }

    if (ilcf->pass) {
        return "cannot be where \"iothub_pass\" is: give it a location of "
               "its own";
    }

    clcf = ngx_http_conf_get_module_loc_conf(cf, ngx_http_core_module);

    if (clcf->handler) {
        return "follows another content handler, such as proxy_pass, in the "
               "same location: give it a location of its own";
    }

    clcf->handler = ngx_http_iothub_status_handler;

    value = cf->args->elts;
    n = sizeof(ngx_http_iothub_status_formats)
        / sizeof(ngx_http_iothub_status_formats[0]);

    if (cf->args->nelts == 1) {
        ilcf->status = 0;
        return NGX_CONF_OK;
    }

    for (i = 0; i < n; i++) {
        if (value[1].len == ngx_http_iothub_status_formats[i].name.len
            && ngx_strcmp(value[1].data,
                          ngx_http_iothub_status_formats[i].name.data)
               == 0)
        {
            ilcf->status = i;
            return NGX_CONF_OK;
        }
    }

    ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                       "invalid format \"%V\" in iothub_status, write "
                       "\"json\" or \"prometheus\"", &value[1]);

    return NGX_CONF_ERROR;
}


static ngx_int_t
ngx_http_iothub_status_handler(ngx_http_request_t *r)
{
    ngx_int_t                        rc;
    ngx_uint_t                       status;
    const char                      *type, *reason;
    ngx_http_iothub_report_t         rep;
    ngx_http_iothub_loc_conf_t      *conf;
    ngx_http_iothub_status_query_t   query;

    if (!(r->method & (NGX_HTTP_GET|NGX_HTTP_HEAD))) {
        return NGX_HTTP_NOT_ALLOWED;
    }

    rc = ngx_http_discard_request_body(r);

    if (rc != NGX_OK) {
        return rc;
    }

    ngx_http_iothub_report_init(&rep, r->pool);

    rc = ngx_http_iothub_status_query(r, &query);

    if (rc == NGX_ERROR) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    if (rc == NGX_DECLINED) {
        return ngx_http_iothub_status_problem(r, &rep, NGX_HTTP_NOT_FOUND,
                                              "There is no such hub");
    }

    conf = ngx_http_get_module_loc_conf(r, ngx_http_iothub_module);

    status = NGX_HTTP_OK;
    type = "application/json";

    if (query.device.data) {

        if (query.nhubs != 1) {
            return ngx_http_iothub_status_problem(r, &rep,
                                        NGX_HTTP_BAD_REQUEST,
                                        "Name the device's hub: hub=NAME");
        }

        if (!ngx_http_iothub_event_device_id_valid(&query.device, &reason)) {
            return ngx_http_iothub_status_problem(r, &rep,
                                        NGX_HTTP_BAD_REQUEST,
                                        "No device has such an id");
        }

        ngx_http_iothub_status_device(&rep, &query);

    } else if (query.health.data) {
        status = ngx_http_iothub_status_health(&rep, &query);

    } else {
        type = ngx_http_iothub_status_formats[conf->status].type;

        if (ngx_http_iothub_status_all(&rep, &query, conf->status)
            != NGX_OK)
        {
            return NGX_HTTP_INTERNAL_SERVER_ERROR;
        }
    }

    return ngx_http_iothub_status_send(r, &rep, status, type);
}


/* NGX_OK; NGX_DECLINED: a hub is named that is not declared; NGX_ERROR */

static ngx_int_t
ngx_http_iothub_status_query(ngx_http_request_t *r,
    ngx_http_iothub_status_query_t *query)
{
    ngx_uint_t              i;
    ngx_http_iothub_hub_t  *hub;

    query->imcf = ngx_http_get_module_main_conf(r, ngx_http_iothub_module);
    query->hubs = query->imcf->hubs.elts;
    query->nhubs = query->imcf->hubs.nelts;

    if (ngx_http_iothub_status_arg(r, "hub", &query->name) != NGX_OK
        || ngx_http_iothub_status_arg(r, "device", &query->device) != NGX_OK
        || ngx_http_iothub_status_arg(r, "health", &query->health) != NGX_OK)
    {
        return NGX_ERROR;
    }

    if (query->name.data == NULL) {
        return NGX_OK;
    }

    hub = ngx_http_iothub_hub_find(&query->imcf->hubs, &query->name);

    if (hub == NULL) {
        return NGX_DECLINED;
    }

    for (i = 0; query->hubs[i] != hub; i++) { /* void */ }

    query->hubs += i;
    query->nhubs = 1;

    return NGX_OK;
}


/* the first argument of that name, decoded; "name" alone is an empty one */

static ngx_int_t
ngx_http_iothub_status_arg(ngx_http_request_t *r, const char *name,
    ngx_str_t *value)
{
    u_char  *p, *last, *end, *src, *dst;
    size_t   len;

    ngx_str_null(value);

    len = ngx_strlen(name);
    last = r->args.data + r->args.len;

    for (p = r->args.data; p < last; p = end + 1) {

        end = ngx_strlchr(p, last, '&');

        if (end == NULL) {
            end = last;
        }

        if ((size_t) (end - p) < len || ngx_strncmp(p, name, len) != 0
            || (p + len != end && p[len] != '='))
        {
            continue;
        }

        src = (p + len == end) ? end : p + len + 1;

        dst = ngx_pnalloc(r->pool, end - src + 1);
        if (dst == NULL) {
            return NGX_ERROR;
        }

        value->data = dst;
        ngx_unescape_uri(&dst, &src, end - src, 0);
        value->len = dst - value->data;

        return NGX_OK;
    }

    return NGX_OK;
}


/* nothing in a device id has to be escaped in JSON */

static void
ngx_http_iothub_status_device(ngx_http_iothub_report_t *rep,
    ngx_http_iothub_status_query_t *query)
{
    time_t                  age;
    ngx_uint_t              state;
    ngx_http_iothub_hub_t  *hub;

    hub = query->hubs[0];

    state = ngx_http_iothub_identity_lookup(hub->shm->identity,
                      ngx_http_iothub_identity_hash(hub->shm->identity,
                                                    query->device.data,
                                                    query->device.len),
                      ngx_time(), &age);

    ngx_http_iothub_report_text(rep, "{\"hub\":\"%V\",\"device\":\"%V\","
                                "\"identity\":\"%s\",\"age\":%T}\n",
                                &hub->name, &query->device,
                                ngx_http_iothub_status_states[state], age);
}


static ngx_uint_t
ngx_http_iothub_status_health(ngx_http_iothub_report_t *rep,
    ngx_http_iothub_status_query_t *query)
{
    ngx_uint_t                i;
    ngx_http_iothub_result_e  result, unusable;

    unusable = NGX_HTTP_IOTHUB_NO_RESULT;

    for (i = 0; i < query->nhubs; i++) {
        result = ngx_http_iothub_report_unusable(query->hubs[i]);

        if (result != NGX_HTTP_IOTHUB_NO_RESULT) {
            unusable = result;
        }
    }

    ngx_http_iothub_report_text(rep, "{\"usable\":%s,\"result\":\"%V\"}\n",
                                unusable ? "false" : "true",
                                &ngx_http_iothub_results[unusable].word);

    return unusable ? NGX_HTTP_SERVICE_UNAVAILABLE : NGX_HTTP_OK;
}


static ngx_int_t
ngx_http_iothub_status_all(ngx_http_iothub_report_t *rep,
    ngx_http_iothub_status_query_t *query, ngx_uint_t format)
{
    ngx_uint_t                         i;
    ngx_http_iothub_snapshot_t        *snapshots;
    ngx_http_iothub_metrics_error_t    none;
    ngx_http_iothub_metrics_counts_t  *hubless;

    snapshots = ngx_palloc(rep->pool, (query->nhubs + 1)
                                      * sizeof(ngx_http_iothub_snapshot_t));
    hubless = ngx_palloc(rep->pool, sizeof(ngx_http_iothub_metrics_counts_t));

    if (snapshots == NULL || hubless == NULL) {
        return NGX_ERROR;
    }

    for (i = 0; i < query->nhubs; i++) {
        ngx_http_iothub_report_snapshot(query->hubs[i], &snapshots[i]);
    }

    if (query->name.data == NULL && query->imcf->metrics) {
        ngx_http_iothub_metrics_sum(query->imcf->metrics, hubless, &none);

    } else {
        hubless = NULL;
    }

    ngx_http_iothub_status_formats[format].write(rep, snapshots,
                                                 query->nhubs, query->imcf,
                                                 hubless);
    return NGX_OK;
}


static ngx_int_t
ngx_http_iothub_status_problem(ngx_http_request_t *r,
    ngx_http_iothub_report_t *rep, ngx_uint_t status, const char *title)
{
    ngx_http_iothub_report_text(rep, "{\"title\":\"%s\",\"status\":%ui}\n",
                                title, status);

    return ngx_http_iothub_status_send(r, rep, status,
                                       "application/problem+json");
}


/* as it is, whatever error_page says */

static ngx_int_t
ngx_http_iothub_status_send(ngx_http_request_t *r,
    ngx_http_iothub_report_t *rep, ngx_uint_t status, const char *type)
{
    ngx_int_t         rc;
    ngx_table_elt_t  *h;

    if (rep->failed || rep->buf == NULL) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    h = ngx_list_push(&r->headers_out.headers);
    if (h == NULL) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    h->hash = 1;
    ngx_str_set(&h->key, "Cache-Control");
    ngx_str_set(&h->value, "no-store");
#if (nginx_version >= 1023000)
    h->next = NULL;
#endif

    r->headers_out.status = status;
    r->headers_out.content_length_n = rep->size;
    r->headers_out.content_type.data = (u_char *) type;
    r->headers_out.content_type.len = ngx_strlen(type);
    r->headers_out.content_type_len = r->headers_out.content_type.len;
    r->headers_out.content_type_lowcase = NULL;

    r->err_status = 0;
    r->disable_not_modified = 1;

    rc = ngx_http_send_header(r);

    if (rc == NGX_ERROR || rc > NGX_OK || r->header_only) {
        return rc > NGX_OK ? NGX_ERROR : rc;
    }

    rep->buf->last_buf = (r == r->main) ? 1 : 0;
    rep->buf->last_in_chain = 1;

    return ngx_http_output_filter(r, rep->out);
}
