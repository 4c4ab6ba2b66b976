
/* Copyright (C) the ngx_http_iothub_module authors */

#include "ngx_http_iothub_prometheus.h"
#include "ngx_http_iothub_sas.h"


/* a metric, and what writes its samples of one hub */

typedef struct ngx_http_iothub_prometheus_row_s
    ngx_http_iothub_prometheus_row_t;

typedef void (*ngx_http_iothub_prometheus_pt)(ngx_http_iothub_report_t *rep,
    const ngx_http_iothub_prometheus_row_t *row,
    ngx_http_iothub_snapshot_t *s);

struct ngx_http_iothub_prometheus_row_s {
    const char                     *name;
    const char                     *type;
    const char                     *help;
    ngx_http_iothub_prometheus_pt   write;
    size_t                          offset;    /* of a number, in a snapshot */
};


static void ngx_http_iothub_prometheus_build(ngx_http_iothub_report_t *rep);
static void ngx_http_iothub_prometheus_sources(ngx_http_iothub_report_t *rep,
    const char *name, ngx_str_t *hub, ngx_uint_t sources,
    ngx_http_iothub_metrics_counts_t *counts);
static void ngx_http_iothub_prometheus_webhooks(
    ngx_http_iothub_report_t *rep,
    const ngx_http_iothub_prometheus_row_t *row,
    ngx_http_iothub_snapshot_t *s);
static void ngx_http_iothub_prometheus_results(ngx_http_iothub_report_t *rep,
    const ngx_http_iothub_prometheus_row_t *row,
    ngx_http_iothub_snapshot_t *s);
static void ngx_http_iothub_prometheus_calls(ngx_http_iothub_report_t *rep,
    const ngx_http_iothub_prometheus_row_t *row,
    ngx_http_iothub_snapshot_t *s);
static void ngx_http_iothub_prometheus_delivery_time(
    ngx_http_iothub_report_t *rep,
    const ngx_http_iothub_prometheus_row_t *row,
    ngx_http_iothub_snapshot_t *s);
static void ngx_http_iothub_prometheus_call_time(
    ngx_http_iothub_report_t *rep,
    const ngx_http_iothub_prometheus_row_t *row,
    ngx_http_iothub_snapshot_t *s);
static void ngx_http_iothub_prometheus_histogram(
    ngx_http_iothub_report_t *rep, const char *name, ngx_str_t *hub,
    const char *operation, ngx_http_iothub_metrics_histogram_t *h);
static void ngx_http_iothub_prometheus_number(ngx_http_iothub_report_t *rep,
    const ngx_http_iothub_prometheus_row_t *row,
    ngx_http_iothub_snapshot_t *s);
static void ngx_http_iothub_prometheus_time(ngx_http_iothub_report_t *rep,
    const ngx_http_iothub_prometheus_row_t *row,
    ngx_http_iothub_snapshot_t *s);
static void ngx_http_iothub_prometheus_identities(
    ngx_http_iothub_report_t *rep,
    const ngx_http_iothub_prometheus_row_t *row,
    ngx_http_iothub_snapshot_t *s);
static void ngx_http_iothub_prometheus_backlog(ngx_http_iothub_report_t *rep,
    const ngx_http_iothub_prometheus_row_t *row,
    ngx_http_iothub_snapshot_t *s);
static void ngx_http_iothub_prometheus_gates(ngx_http_iothub_report_t *rep,
    const ngx_http_iothub_prometheus_row_t *row,
    ngx_http_iothub_snapshot_t *s);
static void ngx_http_iothub_prometheus_gate_times(
    ngx_http_iothub_report_t *rep,
    const ngx_http_iothub_prometheus_row_t *row,
    ngx_http_iothub_snapshot_t *s);
static void ngx_http_iothub_prometheus_keys(ngx_http_iothub_report_t *rep,
    const ngx_http_iothub_prometheus_row_t *row,
    ngx_http_iothub_snapshot_t *s);
static void ngx_http_iothub_prometheus_token_age(
    ngx_http_iothub_report_t *rep,
    const ngx_http_iothub_prometheus_row_t *row,
    ngx_http_iothub_snapshot_t *s);
static void ngx_http_iothub_prometheus_usable(ngx_http_iothub_report_t *rep,
    const ngx_http_iothub_prometheus_row_t *row,
    ngx_http_iothub_snapshot_t *s);


#define ngx_http_iothub_prometheus_at(member)                                 \
    offsetof(ngx_http_iothub_snapshot_t, member)


static const ngx_http_iothub_prometheus_row_t
    ngx_http_iothub_prometheus_rows[] =
{
    { "iothub_webhooks_total", "counter",
      "Webhooks that were answered, by source and result.",
      ngx_http_iothub_prometheus_webhooks, 0 },

    { "iothub_events_total", "counter",
      "Events of webhooks, by result.",
      ngx_http_iothub_prometheus_results,
      ngx_http_iothub_prometheus_at(counts.events) },

    { "iothub_deliveries_total", "counter",
      "Deliveries, each of one message with all its calls, by result.",
      ngx_http_iothub_prometheus_results,
      ngx_http_iothub_prometheus_at(counts.deliveries) },

    { "iothub_delivery_duration_seconds", "histogram",
      "Time from the start of a delivery to its outcome.",
      ngx_http_iothub_prometheus_delivery_time, 0 },

    { "iothub_last_delivered_timestamp_seconds", "gauge",
      "When the hub accepted a message last.",
      ngx_http_iothub_prometheus_time,
      ngx_http_iothub_prometheus_at(counts.delivered) },

    { "iothub_calls_total", "counter",
      "Calls to the hub, by operation and status.",
      ngx_http_iothub_prometheus_calls, 0 },

    { "iothub_call_duration_seconds", "histogram",
      "Time from the start of a call to the end of its answer.",
      ngx_http_iothub_prometheus_call_time, 0 },

    { "iothub_retries_total", "counter",
      "Calls that were repeated after a fault.",
      ngx_http_iothub_prometheus_number,
      ngx_http_iothub_prometheus_at(counts.retries) },

    { "iothub_message_blocks_total", "counter",
      "What the hub accepted, in blocks of 4 KB, as its daily quota counts.",
      ngx_http_iothub_prometheus_number,
      ngx_http_iothub_prometheus_at(counts.blocks) },

    { "iothub_identities_created_total", "counter",
      "Identities that were created in the hub's registry.",
      ngx_http_iothub_prometheus_number,
      ngx_http_iothub_prometheus_at(counts.created) },

    { "iothub_identities_evicted_total", "counter",
      "Identities that the cache forgot for want of room.",
      ngx_http_iothub_prometheus_number,
      ngx_http_iothub_prometheus_at(identities.evicted) },

    { "iothub_identities", "gauge",
      "Identities in the cache, by state.",
      ngx_http_iothub_prometheus_identities, 0 },

    { "iothub_identities_capacity", "gauge",
      "Identities that the cache has places for.",
      ngx_http_iothub_prometheus_number,
      ngx_http_iothub_prometheus_at(identities.capacity) },

    { "iothub_creation_backlog_seconds", "gauge",
      "How long a creation that came now would wait for its turn.",
      ngx_http_iothub_prometheus_backlog, 0 },

    { "iothub_gate_closed", "gauge",
      "Whether a gate holds calls back, and the result that closed it.",
      ngx_http_iothub_prometheus_gates, 0 },

    { "iothub_gate_closed_seconds", "gauge",
      "How long a gate stays closed.",
      ngx_http_iothub_prometheus_gate_times, 0 },

    { "iothub_key_in_use", "gauge",
      "Which key of the policy signs tokens.",
      ngx_http_iothub_prometheus_keys, 0 },

    { "iothub_token_age_seconds", "gauge",
      "Age of the token that was signed last.",
      ngx_http_iothub_prometheus_token_age, 0 },

    { "iothub_usable", "gauge",
      "Whether events would be delivered now.",
      ngx_http_iothub_prometheus_usable, 0 },

    { "iothub_last_error_timestamp_seconds", "gauge",
      "When a delivery failed last.",
      ngx_http_iothub_prometheus_time,
      ngx_http_iothub_prometheus_at(error.time) },

    { NULL, NULL, NULL, NULL, 0 }
};


void
ngx_http_iothub_prometheus(ngx_http_iothub_report_t *rep,
    ngx_http_iothub_snapshot_t *snapshots, ngx_uint_t n,
    ngx_http_iothub_main_conf_t *imcf,
    ngx_http_iothub_metrics_counts_t *hubless)
{
    ngx_uint_t                               i;
    const ngx_http_iothub_prometheus_row_t  *row;

    static ngx_str_t  none = ngx_null_string;

    ngx_http_iothub_prometheus_build(rep);

    for (row = ngx_http_iothub_prometheus_rows; row->name; row++) {

        ngx_http_iothub_report_text(rep, "# HELP %s %s\n# TYPE %s %s\n",
                                    row->name, row->help, row->name,
                                    row->type);

        for (i = 0; i < n; i++) {
            row->write(rep, row, &snapshots[i]);
        }

        if (hubless && row->write == ngx_http_iothub_prometheus_webhooks) {
            ngx_http_iothub_prometheus_sources(rep, row->name, &none,
                                               imcf->sources, hubless);
        }
    }
}


static void
ngx_http_iothub_prometheus_build(ngx_http_iothub_report_t *rep)
{
    ngx_http_iothub_report_text(rep,
                      "# HELP iothub_build_info Versions, as labels.\n"
                      "# TYPE iothub_build_info gauge\n"
                      "iothub_build_info{version=\"%s\",nginx=\"%s\","
                      "openssl=\"%s\"} 1\n",
                      NGX_HTTP_IOTHUB_VERSION, NGINX_VERSION,
                      ngx_http_iothub_sas_library());
}


static void
ngx_http_iothub_prometheus_webhooks(ngx_http_iothub_report_t *rep,
    const ngx_http_iothub_prometheus_row_t *row,
    ngx_http_iothub_snapshot_t *s)
{
    ngx_http_iothub_prometheus_sources(rep, row->name, &s->hub->name,
                                       s->hub->sources, &s->counts);
}


/* all results of the sources in use; of others, what has been counted */

static void
ngx_http_iothub_prometheus_sources(ngx_http_iothub_report_t *rep,
    const char *name, ngx_str_t *hub, ngx_uint_t sources,
    ngx_http_iothub_metrics_counts_t *counts)
{
    uint64_t    count;
    ngx_uint_t  source, result;

    for (source = 0; source < NGX_HTTP_IOTHUB_SOURCES; source++) {

        for (result = NGX_HTTP_IOTHUB_DELIVERED;
             result < NGX_HTTP_IOTHUB_RESULTS;
             result++)
        {
            count = counts->webhooks[source][result];

            if (count == 0 && !(sources & ((ngx_uint_t) 1 << source))) {
                continue;
            }

            ngx_http_iothub_report_text(rep, "%s{hub=\"%V\",source=\"%V\","
                                        "result=\"%V\"} %uL\n", name, hub,
                                        ngx_http_iothub_source_name(source),
                                        &ngx_http_iothub_results[result].word,
                                        count);
        }
    }
}


static void
ngx_http_iothub_prometheus_results(ngx_http_iothub_report_t *rep,
    const ngx_http_iothub_prometheus_row_t *row,
    ngx_http_iothub_snapshot_t *s)
{
    uint64_t    *counts;
    ngx_uint_t   i;

    counts = (uint64_t *) ((u_char *) s + row->offset);

    for (i = NGX_HTTP_IOTHUB_DELIVERED; i < NGX_HTTP_IOTHUB_RESULTS; i++) {
        ngx_http_iothub_report_text(rep, "%s{hub=\"%V\",result=\"%V\"} %uL\n",
                                    row->name, &s->hub->name,
                                    &ngx_http_iothub_results[i].word,
                                    counts[i]);
    }
}


static void
ngx_http_iothub_prometheus_calls(ngx_http_iothub_report_t *rep,
    const ngx_http_iothub_prometheus_row_t *row,
    ngx_http_iothub_snapshot_t *s)
{
    ngx_uint_t  i, n;

    for (n = 0; n < NGX_HTTP_IOTHUB_METRICS_OPERATIONS; n++) {
        for (i = 0; i < NGX_HTTP_IOTHUB_METRICS_STATUSES; i++) {
            ngx_http_iothub_report_text(rep, "%s{hub=\"%V\","
                            "operation=\"%s\",status=\"%s\"} %uL\n",
                            row->name, &s->hub->name,
                            ngx_http_iothub_metrics_operations[n],
                            ngx_http_iothub_metrics_statuses[i].text,
                            s->counts.calls[n][i]);
        }
    }
}


static void
ngx_http_iothub_prometheus_delivery_time(ngx_http_iothub_report_t *rep,
    const ngx_http_iothub_prometheus_row_t *row,
    ngx_http_iothub_snapshot_t *s)
{
    ngx_http_iothub_prometheus_histogram(rep, row->name, &s->hub->name, NULL,
                                         &s->counts.delivery_time);
}


static void
ngx_http_iothub_prometheus_call_time(ngx_http_iothub_report_t *rep,
    const ngx_http_iothub_prometheus_row_t *row,
    ngx_http_iothub_snapshot_t *s)
{
    ngx_uint_t  n;

    for (n = 0; n < NGX_HTTP_IOTHUB_METRICS_OPERATIONS; n++) {
        ngx_http_iothub_prometheus_histogram(rep, row->name, &s->hub->name,
                                     ngx_http_iothub_metrics_operations[n],
                                     &s->counts.call_time[n]);
    }
}


static void
ngx_http_iothub_prometheus_histogram(ngx_http_iothub_report_t *rep,
    const char *name, ngx_str_t *hub, const char *operation,
    ngx_http_iothub_metrics_histogram_t *h)
{
    u_char       labels[sizeof(",operation=\"create\"")];
    uint64_t     sum;
    ngx_uint_t   i;
    const char  *le;

    labels[0] = '\0';

    if (operation) {
        ngx_sprintf(labels, ",operation=\"%s\"%Z", operation);
    }

    for (i = 0, sum = 0; i <= NGX_HTTP_IOTHUB_METRICS_BOUNDS; i++) {

        sum += h->counts[i];
        le = (i < NGX_HTTP_IOTHUB_METRICS_BOUNDS)
             ? ngx_http_iothub_metrics_bounds[i].text : "+Inf";

        ngx_http_iothub_report_text(rep, "%s_bucket{hub=\"%V\"%s,le=\"%s\"} "
                                    "%uL\n", name, hub, labels, le, sum);
    }

    ngx_http_iothub_report_text(rep, "%s_sum{hub=\"%V\"%s} %uL.%03uL\n"
                                "%s_count{hub=\"%V\"%s} %uL\n",
                                name, hub, labels, h->sum / 1000,
                                h->sum % 1000, name, hub, labels, sum);
}


static void
ngx_http_iothub_prometheus_number(ngx_http_iothub_report_t *rep,
    const ngx_http_iothub_prometheus_row_t *row,
    ngx_http_iothub_snapshot_t *s)
{
    ngx_http_iothub_report_text(rep, "%s{hub=\"%V\"} %uL\n", row->name,
                            &s->hub->name,
                            *(uint64_t *) ((u_char *) s + row->offset));
}


/* what has not happened has no time */

static void
ngx_http_iothub_prometheus_time(ngx_http_iothub_report_t *rep,
    const ngx_http_iothub_prometheus_row_t *row,
    ngx_http_iothub_snapshot_t *s)
{
    if (*(uint64_t *) ((u_char *) s + row->offset)) {
        ngx_http_iothub_prometheus_number(rep, row, s);
    }
}


static void
ngx_http_iothub_prometheus_identities(ngx_http_iothub_report_t *rep,
    const ngx_http_iothub_prometheus_row_t *row,
    ngx_http_iothub_snapshot_t *s)
{
    ngx_uint_t  i;

    const struct {
        const char  *name;
        uint64_t     n;
    } states[] = {
        { "known", s->identities.known },
        { "settling", s->identities.settling },
        { "blocked", s->identities.blocked }
    };

    for (i = 0; i < 3; i++) {
        ngx_http_iothub_report_text(rep, "%s{hub=\"%V\",state=\"%s\"} %uL\n",
                                    row->name, &s->hub->name, states[i].name,
                                    states[i].n);
    }
}


static void
ngx_http_iothub_prometheus_backlog(ngx_http_iothub_report_t *rep,
    const ngx_http_iothub_prometheus_row_t *row,
    ngx_http_iothub_snapshot_t *s)
{
    ngx_http_iothub_report_text(rep, "%s{hub=\"%V\"} %M.%03M\n", row->name,
                                &s->hub->name, s->backlog / 1000,
                                s->backlog % 1000);
}


static void
ngx_http_iothub_prometheus_gates(ngx_http_iothub_report_t *rep,
    const ngx_http_iothub_prometheus_row_t *row,
    ngx_http_iothub_snapshot_t *s)
{
    ngx_str_t   result;
    ngx_uint_t  i;

    for (i = 0; i < NGX_HTTP_IOTHUB_GATES; i++) {

        ngx_str_null(&result);

        if (s->gates[i].closed) {
            result = ngx_http_iothub_results[s->gates[i].reason].word;
        }

        ngx_http_iothub_report_text(rep, "%s{hub=\"%V\",gate=\"%s\","
                                    "result=\"%V\"} %ui\n", row->name,
                                    &s->hub->name,
                                    ngx_http_iothub_throttle_gate_name(i),
                                    &result, s->gates[i].closed);
    }
}


static void
ngx_http_iothub_prometheus_gate_times(ngx_http_iothub_report_t *rep,
    const ngx_http_iothub_prometheus_row_t *row,
    ngx_http_iothub_snapshot_t *s)
{
    ngx_uint_t  i;

    for (i = 0; i < NGX_HTTP_IOTHUB_GATES; i++) {
        ngx_http_iothub_report_text(rep, "%s{hub=\"%V\",gate=\"%s\"} "
                                    "%M.%03M\n", row->name, &s->hub->name,
                                    ngx_http_iothub_throttle_gate_name(i),
                                    s->gates[i].left / 1000,
                                    s->gates[i].left % 1000);
    }
}


static void
ngx_http_iothub_prometheus_keys(ngx_http_iothub_report_t *rep,
    const ngx_http_iothub_prometheus_row_t *row,
    ngx_http_iothub_snapshot_t *s)
{
    ngx_uint_t  i;

    static const char *const  names[] = { "primary", "secondary" };

    for (i = 0; i < s->hub->nkeys; i++) {
        ngx_http_iothub_report_text(rep, "%s{hub=\"%V\",key=\"%s\"} %ui\n",
                                    row->name, &s->hub->name, names[i],
                                    (ngx_uint_t) (s->key == i));
    }
}


static void
ngx_http_iothub_prometheus_token_age(ngx_http_iothub_report_t *rep,
    const ngx_http_iothub_prometheus_row_t *row,
    ngx_http_iothub_snapshot_t *s)
{
    if (s->counts.signed_at) {
        ngx_http_iothub_report_text(rep, "%s{hub=\"%V\"} %T\n", row->name,
                      &s->hub->name,
                      ngx_http_iothub_report_age(s->counts.signed_at));
    }
}


static void
ngx_http_iothub_prometheus_usable(ngx_http_iothub_report_t *rep,
    const ngx_http_iothub_prometheus_row_t *row,
    ngx_http_iothub_snapshot_t *s)
{
    ngx_http_iothub_report_text(rep, "%s{hub=\"%V\"} %ui\n", row->name,
                 &s->hub->name,
                 (ngx_uint_t) (s->unusable == NGX_HTTP_IOTHUB_NO_RESULT));
}
