// A second pair of eyes that does not depend on the gateway: what Azure itself counted, and what it will bill.

param name string
param location string
param tags object
param accountName string
param alertEmails string[]
param monthlyBudgetDollars int
param budgetStart string

@description('Tokens in an hour, over all deployments, that nobody should reach unnoticed.')
param hourlyTokens int = 5000000

resource account 'Microsoft.CognitiveServices/accounts@2024-10-01' existing = {
  name: accountName
}

resource logs 'Microsoft.OperationalInsights/workspaces@2025-07-01' = {
  name: '${name}-logs'
  location: location
  tags: tags
  properties: {
    sku: {
      name: 'PerGB2018'
    }
    retentionInDays: 30
  }
}

resource diagnostics 'Microsoft.Insights/diagnosticSettings@2021-05-01-preview' = {
  name: 'to-logs'
  scope: account
  properties: {
    workspaceId: logs.id
    // Who called when and how it ended. The category with prompts and answers is left out on purpose.
    logs: [
      {
        category: 'Audit'
        enabled: true
      }
    ]
    metrics: [
      {
        category: 'AllMetrics'
        enabled: true
      }
    ]
  }
}

resource people 'Microsoft.Insights/actionGroups@2023-01-01' = {
  name: '${name}-owners'
  location: 'global'
  tags: tags
  properties: {
    groupShortName: take(name, 12)
    enabled: true
    emailReceivers: [for email in alertEmails: {
      name: email
      emailAddress: email
      useCommonAlertSchema: true
    }]
  }
}

resource tokens 'Microsoft.Insights/metricAlerts@2018-03-01' = {
  name: '${name}-tokens'
  location: 'global'
  tags: tags
  properties: {
    description: 'More tokens in an hour than all tenants together should use.'
    severity: 1
    enabled: true
    scopes: [account.id]
    evaluationFrequency: 'PT5M'
    windowSize: 'PT1H'
    criteria: {
      'odata.type': 'Microsoft.Azure.Monitor.SingleResourceMultipleMetricCriteria'
      allOf: [
        {
          criterionType: 'StaticThresholdCriterion'
          name: 'tokens'
          metricNamespace: 'Microsoft.CognitiveServices/accounts'
          metricName: 'TokenTransaction'
          timeAggregation: 'Total'
          operator: 'GreaterThan'
          threshold: hourlyTokens
        }
      ]
    }
    actions: [
      {
        actionGroupId: people.id
      }
    ]
  }
}

resource budget 'Microsoft.Consumption/budgets@2024-08-01' = {
  name: '${name}-month'
  properties: {
    category: 'Cost'
    amount: monthlyBudgetDollars
    timeGrain: 'Monthly'
    timePeriod: {
      startDate: budgetStart
    }
    notifications: {
      half: {
        enabled: true
        operator: 'GreaterThan'
        threshold: 50
        thresholdType: 'Actual'
        contactEmails: alertEmails
      }
      nearly: {
        enabled: true
        operator: 'GreaterThan'
        threshold: 90
        thresholdType: 'Actual'
        contactEmails: alertEmails
      }
      expected: {
        enabled: true
        operator: 'GreaterThan'
        threshold: 100
        thresholdType: 'Forecasted'
        contactEmails: alertEmails
      }
    }
  }
}
