using 'main.bicep'

param name = 'aoaigw'
param environment = 'dev'
param costCenter = '0000'
param owner = 'platform@example.com'
param deployments = [
  {
    name: 'chat'
    model: 'gpt-4o-mini'
    version: '2024-07-18'
    sku: 'GlobalStandard'
    capacity: 50
  }
]
param clusterIssuer = 'https://REPLACE-ME.oic.prod-aks.azure.com/TENANT/CLUSTER/'
param monthlyBudgetDollars = 1500
// The month of the first deployment, such as 2026-12-01; later deployments keep it.
param budgetStart = 'REPLACE-ME'
param alertEmails = ['platform@example.com']
