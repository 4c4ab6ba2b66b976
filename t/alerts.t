#!/usr/bin/perl

# What is there for Prometheus and Grafana: promtool takes the metrics and the
# alerts, each alert comes and goes as it should (t/alerts.yml), and what the
# alerts, the dashboard and the documents name is what the module says.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";
use JSON::PP qw(decode_json encode_json);
use Test::More;
use IoTHubTest;

my $root = "$FindBin::Bin/..";
my $t = IoTHubTest->new;
my $hub = $t->hub(tls => 0);

chomp(my $promtool = `$FindBin::Bin/lib/promtool`);

ok(-x $promtool, 'promtool is there') or die "no promtool\n";


sub slurp {
    my ($name) = @_;

    open my $fh, '<', "$root/$name" or die "$name: $!";
    local $/;
    return <$fh>;
}


# what promtool says, and whether it is content

sub promtool {
    my ($name, @arguments) = @_;

    my $said = `cd $root && $promtool @arguments 2>&1`;

    is($?, 0, $name) or diag $said;
    unlike($said, qr/warn|error/i, "$name: without a word");
}


$t->nginx($hub->block('') . <<'CONF');

    iothub_secret off;

    server {
        listen 127.0.0.1:%%PORT_8080%%;
        location = /metrics { iothub_status prometheus; }
        location / { iothub_pass contoso; }
    }

CONF

for my $id ('new', 'new', 'a b') {
    $t->post('/', "event=e&data=1&coreid=$id",
             'Content-Type' => 'application/x-www-form-urlencoded');
}

my $metrics = $t->get('/metrics')->{body};

$t->write_file('metrics', $metrics);
promtool('metrics', 'check', 'metrics', '<', $t->dir . '/metrics');
promtool('rules', 'check', 'rules', 'doc/alerts.yml');
promtool('alerts', 'test', 'rules', 't/alerts.yml');


# ---- names

my %type = $metrics =~ /^# TYPE (\S+) (\S+)$/mg;
my %label;

while ($metrics =~ /^(\w+)\{(.*)\} /mg) {
    my ($name, $labels) = ($1, $2);

    $label{$name}{$1}{$2} = 1 while $labels =~ /(\w+)="([^"]*)"/g;
}

cmp_ok(keys %type, '>', 20, 'metrics');

# a histogram's samples have names of their own

for my $name (grep { $type{$_} eq 'histogram' } keys %type) {
    $type{"${name}_$_"} = 'sample' for qw(bucket sum count);
}

my $rules = slurp('doc/alerts.yml');
my $dashboard = decode_json(slurp('doc/grafana.json'));
my @expressions = map { $_->{expr} }
    map { @{ $_->{targets} } } @{ $dashboard->{panels} };
my %recorded = map { $_ => 1 } $rules =~ /- record: (\S+)/g;

cmp_ok(scalar @expressions, '>', 15, 'panels of the dashboard');

my $all = join "\n", @expressions,
    $rules =~ /^    expr: (.*?)(?=^    for:|^$)/gms;

ok($type{$_} || $recorded{$_}, "$_ is a metric")
    for $all =~ /\b(iothub[_:][a-z_]+)/g;

while ($all =~ /(iothub_\w+)\{([^}]*)\}/g) {
    my ($name, $labels) = ($1, $2);

    ok($label{$name}{$_}, "$name has the label $_")
        for $labels =~ /(\w+)(?:=|!)/g;
}

# Prometheus takes the queries, with what Grafana puts in

my @queries = map { s/\$__rate_interval/5m/gr =~ s/\$hub/.*/gr } @expressions;

$t->write_file('queries.yml', encode_json({ groups => [ {
    name => 'dashboard',
    rules => [map { { record => "dashboard:query:$_", expr => $queries[$_] } }
              0 .. $#queries],
} ] }));
promtool('queries of the dashboard', 'check', 'rules',
         $t->dir . '/queries.yml');

# Grafana takes a dashboard whose panels have places and numbers of their own

my %variable = map { $_->{name} => 1 } @{ $dashboard->{templating}{list} };
my (%id, %cell);

for my $panel (@{ $dashboard->{panels} }) {
    my $name = "panel $panel->{title}";
    my ($x, $y, $w, $h) = @{ $panel->{gridPos} }{qw(x y w h)};
    my @cells = map { my $column = $_; map { "$column,$_" } $y .. $y + $h - 1 }
        $x .. $x + $w - 1;

    is($id{ $panel->{id} }++, 0, "$name: its id");
    is((grep { $cell{$_}++ } @cells), 0, "$name: its place");
    cmp_ok($x + $w, '<=', 24, "$name: within the width");
    is(scalar(grep { ($_->{datasource} // $panel->{datasource})->{uid}
                     ne '${datasource}' } @{ $panel->{targets} }), 0,
       "$name: the data source is that which was chosen");
}

ok($variable{$_}, "dashboard: \$$_ is a variable") for qw(datasource hub);

# the results that alerts are about

my %result = map { $_ => 1 } keys %{ $label{iothub_events_total}{result} };

for my $list ($rules =~ /result(?:=|=~|!~)\s*"([^"]+)"/g) {
    ok($result{$_}, "$_ is a result") for split /\|/, $list;
}


# ---- documents

my $directives = slurp('doc/directives.md');
my $monitoring = slurp('doc/monitoring.md');
my %alert = map { $_ => 1 } $rules =~ /- alert: (\S+)/g;

for my $name (sort grep { $type{$_} ne 'sample' } keys %type) {
    like($directives, qr/^\| `$name` \|/m, "doc/directives.md: $name");
}

# the configuration for Prometheus, beside the rules

my ($prometheus) = $monitoring =~ /^```yaml\n(.*?)^```/ms;

$t->write_file('prometheus.yml', $prometheus);
$t->write_file('alerts.yml', $rules);
promtool('prometheus.yml', 'check', 'config', $t->dir . '/prometheus.yml');

ok($type{$_}, "doc/directives.md: $_ exists")
    for $directives =~ /^\| `(iothub_[a-z_]+)` \|.*\|.*\|$/mg;
like($monitoring, qr/^\| `$_` \|/m, "doc/monitoring.md: $_")
    for sort keys %alert;

my $operations = slurp('doc/operations.md');
my $descriptions = $rules =~ s/\s+/ /gr;
my @sections = $descriptions =~ /[Ss]ection '([^']+)'/g;

cmp_ok(scalar @sections, '>', 5, 'alerts send to sections');

for (@sections) {
    my $heading = s/ \.\.\.$//r;

    like($operations, qr/^## \Q$heading\E/m, "doc/operations.md: $_");
}

ok($alert{$_}, "doc/monitoring.md: $_ exists")
    for $monitoring =~ /^\| `(IoTHub\w+)` \|/mg;

$t->done;
