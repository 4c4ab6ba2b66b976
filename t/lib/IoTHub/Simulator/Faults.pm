# Copyright (C) the ngx_http_iothub_module authors

# Scripted faults: the rules, and what one makes of an answer.

package IoTHub::Simulator::Faults;

use v5.36;
use strict;
use warnings;

use POSIX qw(strftime);

use IoTHub::Simulator::Errors qw(error_body error_by_code error_by_name
    error_by_status html_body);

# What the value of each member of a rule must look like.

my $COUNT  = qr/^[0-9]{1,12}\z/;
my $TEXT   = qr/^.*\z/s;
my %MEMBER = (
    op          => qr/^[a-z|]+\z/,
    device      => $TEXT,
    device_re   => $TEXT,
    after       => $COUNT,
    times       => $COUNT,
    probability => qr/^(?:0(?:\.\d+)?|1(?:\.0+)?|\d(?:\.\d+)?e-\d+)\z/i,
    name        => $TEXT,
    status      => qr/^[1-9][0-9]{2}\z/,
    code        => qr/^[0-9]{6}\z/,
    error       => $TEXT,
    message     => $TEXT,
    format      => qr/^(?:1|2|empty|html|garbage)\z/,
    retry_after => $TEXT,
    headers     => undef,
    delay       => $COUNT,
    hang        => $TEXT,
    close       => qr/^(?:before|middle|request)\z/,
    reset       => $TEXT,
    accept      => $TEXT,
    oversize    => $COUNT,
    raw         => $TEXT,
    keep        => $TEXT,
    interim     => qr/^10[023]\z/,
);

my %OPERATION = map { $_ => 1 }
    qw(any create update get delete bulk list send batch other);


sub new($class) {
    return bless { rules => [] }, $class;
}


# Dies of a rule that would not do what its writer meant.

sub replace($self, $list) {
    die "an array of rules is needed\n" unless ref $list eq 'ARRAY';
    $self->{rules} = [map { rule($_) } @$list];
    return;
}


sub rule($given) {
    die "a rule is an object\n" unless ref $given eq 'HASH';

    my %rule = %$given;
    for my $name (sort keys %rule) {
        die "a rule has no '$name'\n" unless exists $MEMBER{$name};
        if (!defined $rule{$name}) {
            delete $rule{$name};
            next;
        }
        my $pattern = $MEMBER{$name} // next;
        die "'$rule{$name}' is no value for '$name'\n"
            unless $rule{$name} =~ $pattern;
    }
    die "'headers' is not an object\n"
        if $rule{headers} && ref $rule{headers} ne 'HASH';

    die "'accept' needs the whole request, not 'close' at its head\n"
        if $rule{accept} && ($rule{close} // '') eq 'request';

    my %operations = map { $_ => 1 } split /\|/, $rule{op} // 'any';
    for my $operation (keys %operations) {
        die "there is no operation '$operation'\n"
            unless $OPERATION{$operation};
    }

    return {
        rule       => \%rule,
        operations => \%operations,
        pattern => defined $rule{device_re} ? qr/$rule{device_re}/ : undef,
        matches => 0,
        hits    => 0,
    };
}


sub list($self) {
    return [map { { %{ $_->{rule} }, matches => $_->{matches},
        hits => $_->{hits} } } @{ $self->{rules} }];
}


# The first rule that is for the request and not skipped or used up.

sub choose($self, $operation, $device) {
    for my $entry (@{ $self->{rules} }) {
        my $rule = $entry->{rule};

        next unless $entry->{operations}{any}
            || $entry->{operations}{$operation};
        next if defined $rule->{device}
            && (!defined $device || $device ne $rule->{device});
        next if $entry->{pattern}
            && (!defined $device || $device !~ $entry->{pattern});

        $entry->{matches}++;
        next if $entry->{matches} <= ($rule->{after} // 0);
        next if defined $rule->{times} && $entry->{hits} >= $rule->{times};
        next if defined $rule->{probability}
            && rand() >= $rule->{probability};

        $entry->{hits}++;
        return $rule;
    }

    return undef;
}


sub label($rule) {
    return undef unless $rule;
    return $rule->{name} // $rule->{error} // $rule->{status}
        // (grep { $rule->{$_} } qw(close reset hang raw interim oversize
        delay format accept retry_after headers))[0] // 'fault';
}


# Whether the operation itself is left out: its place is taken by what the
# rule says instead.

sub replaces($rule) {
    return 0 if !$rule || $rule->{accept};
    return 1 if grep { defined $rule->{$_} } qw(status code error raw);
    return 1 if grep { $rule->{$_} } qw(close reset hang);
    return 0;
}


# The answer to give; $answer is the operation's, if it was carried out.

sub answer($rule, $answer) {
    return $answer unless $rule;

    # another success does not cover up an operation that failed
    my $failed = $answer && $answer->{status} >= 300
        && ($rule->{status} // 300) < 300;

    $answer = error_answer_of($rule)
        if !$failed && grep { defined $rule->{$_} } qw(status code error);
    $answer //= { status => 204 };
    $answer = { %$answer, headers => [@{ $answer->{headers} // [] }] };

    shape_body($rule->{format}, $answer);

    if ($rule->{oversize}) {
        $answer->{body} = 'x' x $rule->{oversize};
        $answer->{type} //= 'application/json; charset=utf-8';
    }

    push @{ $answer->{headers} },
        ['Retry-After', retry_after($rule->{retry_after})]
        if defined $rule->{retry_after};
    push @{ $answer->{headers} },
        map { [$_, $rule->{headers}{$_}] } sort keys %{ $rule->{headers} }
        if $rule->{headers};

    return $answer;
}


# "date+N" is the date in N seconds.

sub retry_after($value) {
    return $value unless $value =~ /^date\+(\d{1,9})\z/;
    return strftime '%a, %d %b %Y %H:%M:%S GMT', gmtime time + $1;
}


# What the rule leaves out, the table of errors fills in.

sub error_answer_of($rule) {
    my $known = defined $rule->{code}  ? error_by_code($rule->{code})
        : defined $rule->{error}       ? error_by_name($rule->{error})
        :                                error_by_status($rule->{status});

    my $code   = $rule->{code} // ($known ? $known->{code} : undef);
    my $status = $rule->{status} // int(($code // 500_000) / 1000);
    return { status => $status } if $status < 300;

    my $error = {
        code => $code // $status * 1000,
        name => $rule->{error} // ($known ? $known->{name} : 'Unknown'),
        text => $rule->{message} // ($known ? $known->{text} : 'Unknown'),
    };

    my $format = ($rule->{format} // 1) eq '2' ? 2 : 1;
    return {
        status  => $status,
        error   => $error->{name},
        type    => 'application/json; charset=utf-8',
        headers => [['iothub-errorcode', $error->{name}]],
        body    => error_body($error, $format),
    };
}


# Bodies that are none of the hub's come from something in front of it, which
# does not know the hub's header.

my %SHAPE = (
    empty   => sub { return ('', undef) },
    garbage => sub {
        return (join('', map { chr int rand 256 } 1 .. 200),
            'application/json; charset=utf-8');
    },
    html => sub ($status) {
        return (html_body($status, "HTTP Error $status."), 'text/html');
    },
);


sub shape_body($format, $answer) {
    my $shape = $SHAPE{ $format // '' } or return;

    ($answer->{body}, $answer->{type}) = $shape->($answer->{status});
    $answer->{headers} = [grep { lc $_->[0] ne 'iothub-errorcode' }
        @{ $answer->{headers} }];
    return;
}

1;
